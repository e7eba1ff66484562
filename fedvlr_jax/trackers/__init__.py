"""Trackers of experiments, beside TensorBoard's files (`events.py`); none is needed to train."""
