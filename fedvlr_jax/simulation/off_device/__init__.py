"""Training with private states on the host, of clients that have taken part, a wave at a time.

`store.py` holds the states in memory and in files, `waves.py` brings a wave of clients to the
devices, `programs.py` is what runs there, `trainer.py` lets the three overlap.
"""
