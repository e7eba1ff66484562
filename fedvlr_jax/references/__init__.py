"""Centralized recommenders: they see everyone's data, and tell how hard a data set is."""
