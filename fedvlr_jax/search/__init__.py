"""Searches: settings chosen by the validation score of runs, one after the other."""
