"""Published data sets, each read in its own format into one `Raw` (log.py)."""
