"""Several processes, often on several hosts, that train one federation together.

`place.py` says which process this is, `start.py` joins them, `peers.py` watches over them, and
`together.py` is what the rest of the package asks of them; with one process all of it is free.
"""
