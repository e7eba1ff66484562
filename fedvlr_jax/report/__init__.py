"""What people read of results: tables, charts as pictures and on pages, a page for each program."""
