"""Comparisons of many runs: the same search for everyone, seeds, tables, tests of significance."""
