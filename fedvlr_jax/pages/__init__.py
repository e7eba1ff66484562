"""How all HTML pages look: the shell, sections with tables and pictures, interactive charts."""
