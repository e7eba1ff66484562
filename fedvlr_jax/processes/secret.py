"""The secret that all processes of one run share; what does not know it is a stranger.

It is never sent: both ends of a connection show that they know it (`greeting.py`).
"""

import os
import secrets
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from fedvlr_jax.errors import UserError

VARIABLE = "FEDVLR_SECRET"
_LEAST = 16  # characters; fewer could be guessed from a greeting that was overheard
_BYTES = 32
_SECONDS_TO_WRITE = 5.0
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def shared(environment: Mapping[str, str] = os.environ) -> bytes:
    """FEDVLR_SECRET where it is set, otherwise what a file of this user holds.

    The file is made by the first process that looks for it, so processes of one user that share a
    home folder share it. Where the home folder cannot be written to, it is in the folder for
    temporary files, for the processes of one host.

    Raises:
        UserError: the secret is too short, others can read the file, or it cannot be made.
    """
    given = environment.get(VARIABLE)
    if given is not None:
        if len(given) < _LEAST:
            raise UserError(
                f"{VARIABLE}: {len(given)} characters, expected at least {_LEAST}, the same in all "
                "processes"
            )
        return os.fsencode(given)
    for folder in _folders(environment):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_own(folder)
            return _of_file(folder / "secret")
        except OSError:
            continue
    raise UserError(
        f"no folder for the secret can be written to; set the environment variable {VARIABLE} "
        "to the same secret in all processes"
    )


def _folders(environment: Mapping[str, str]) -> list[Path]:
    home = environment.get("XDG_CONFIG_HOME") or os.path.join(
        environment.get("HOME", ""), ".config"
    )
    temporary = Path(tempfile.gettempdir(), f"fedvlr_jax-{os.geteuid()}")
    # Without HOME there is no absolute path, and the working folder is no place for a secret.
    return [Path(home, "fedvlr_jax"), temporary] if os.path.isabs(home) else [temporary]


def _of_file(path: Path) -> bytes:
    """The secret in a file, which is made where it is not there.

    Raises:
        UserError: others can read it, or it holds no secret.
        OSError: it can be neither made nor read.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with open(descriptor, "w") as file:
            file.write(secrets.token_hex(_BYTES))
    until = time.monotonic() + _SECONDS_TO_WRITE
    while True:
        _check_own(path)
        content = path.read_bytes()
        if len(content) == 2 * _BYTES:
            return content
        # The process that has made the file writes it at this moment.
        if time.monotonic() >= until:
            raise UserError(
                f"{path}: expected {2 * _BYTES} characters; remove it, and the next run makes it "
                "anew"
            )
        time.sleep(0.05)


def _check_own(path: Path) -> None:
    """Refuse a file or folder that other users can read, write or have made.

    Raises:
        UserError: they can.
        OSError: it cannot be asked.
    """
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise UserError(
            f"{path}: belongs to another user; set the environment variable {VARIABLE} instead"
        )
    # Others may look into the folder, as into most home folders, but not change it.
    forbidden = stat.S_IWGRP | stat.S_IWOTH if path.is_dir() else _OTHERS
    if status.st_mode & forbidden:
        raise UserError(
            f"{path}: other users have access to it; run chmod go-rwx on it, or set the "
            f"environment variable {VARIABLE}"
        )
