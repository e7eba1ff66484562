"""What a user's mistake raises, and what a user's wish to stop does."""


class UserError(ValueError):
    """Bad input, told in one sentence: what was found, where, and what was expected.

    The command-line programs print the sentence on stderr and exit with code 2. Everything else
    that is raised is a bug in this package and keeps its traceback.
    """


class DivergedError(UserError):
    """Training whose loss or parameters stopped being finite; smaller learning rates may help."""


class Stopped(Exception):  # noqa: N818 -- not an error
    """Training was stopped, as its reporter wanted, and saved; the same call goes on from there."""
