"""What is raced: this project and the other ways to simulate the same clients.

`names.py` lists them. A module here is imported only in the process that measures it, so that
nobody needs all of the libraries, and no contender pays for the memory of another's.
"""
