"""Several processes, often on several hosts, that train one federation together.

`place.py` says which process this is and `start.py` joins them. `greeting.py` lets in who knows the
secret (`secret.py`) at the right address (`addresses.py`), `tunnel.py` brings JAX's messages from
one to the other, and `peers.py` watches over them. `together.py` is what the rest of the package
asks of them; with one process all of it is free. Processes that share a sweep are not joined; by
`share.py` each has accelerators of its own.
"""
