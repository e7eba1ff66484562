"""Compiled programs are kept in a folder, so that the next start need not compile them again."""

import contextlib
import hashlib
import os
import platform
import shutil
import stat
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

OFF = "off"
_folder: Path | None = None  # of this process
_MOST_BYTES = 2 << 30  # of all programs that are kept
_LEAST_FREE = 256 << 20  # bytes of room that are left to others
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# JAX before 0.10 crashes on macOS while it reads a long program (jaxlib's linker of that time).
_READS_ON_MACOS = (0, 10)


def keep(where: str | Path | None = None) -> str | None:
    """Keep compiled programs from now on, for this process and for later ones.

    To be called before JAX has compiled anything. Whatever is wrong with the folder, later or now,
    costs the time of compiling and nothing else.

    Args:
        where: a folder, or "off"; None for this user's own (`own_folder`), if neither the
            environment nor the caller has told JAX of one (`JAX_COMPILATION_CACHE_DIR`).

    Returns:
        Why programs are not kept, as a sentence; None where they are, or are not meant to be.
    """
    global _folder
    if str(where) == OFF:
        stop()
        return None
    reads = sys.platform != "darwin" or jax.__version_info__ >= _READS_ON_MACOS
    if where is None and (jax.config.jax_compilation_cache_dir or not reads):
        return None
    try:
        programs = own_folder() if where is None else Path(where)
        _prepare(programs, ours=where is None)
    except OSError as error:
        return (
            f"compiled programs are not kept for the next start: {error.filename or where}: "
            f"{error.strerror}; --compilation_cache=DIR keeps them elsewhere"
        )
    _folder = programs / _machine()
    for name, value in {
        "jax_compilation_cache_dir": str(_folder),
        # A start compiles some twenty small programs beside the large ones.
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        # Whole programs are enough; XLA's files beside them would not be bounded by `_thin`.
        "jax_persistent_cache_enable_xla_caches": "",
    }.items():
        jax.config.update(name, value)
    # A damaged entry, a folder that has become full: the program is compiled.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    return None


def stop() -> None:
    """Keep nothing from now on, and read nothing that was kept."""
    global _folder
    _folder = None
    jax.config.update("jax_enable_compilation_cache", False)


def folder() -> Path | None:
    """Where this process keeps programs, None where it does not or where JAX alone does."""
    return _folder


@contextlib.contextmanager
def anew() -> Iterator[None]:
    """Inside, programs are compiled, whatever JAX has kept, and JAX keeps none of them."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def own_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """This user's folder of compiled programs, below that for what can be made again.

    Raises:
        FileNotFoundError: the user has no home folder.
    """
    caches = environment.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):
        home = environment.get("HOME", "")
        if not os.path.isabs(home):
            raise FileNotFoundError(2, "is no folder", f"HOME={home}")
        caches = os.path.join(home, "Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(caches, "fedvlr_jax", "compiled")


def _prepare(folder: Path, ours: bool) -> None:
    """Make the folder, and room in it.

    Raises:
        OSError: it cannot be written, is full, or others can write into what is to be `ours`: who
            can has programs of his run.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if ours and (status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE):
        raise PermissionError(1, "others can write to it", str(folder))
    (folder / _machine()).mkdir(exist_ok=True)
    if not os.access(folder / _machine(), os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(1, "cannot be written", str(folder))
    thin(folder, _MOST_BYTES)
    if shutil.disk_usage(folder).free < _LEAST_FREE:
        raise OSError(28, "the disk is full", str(folder))


def thin(folder: Path, most: int) -> None:
    """Remove what has not been used for longest, until `most` bytes are left.

    JAX has such a limit, too, but takes a lock on every reading for it, which not every file system
    has and which processes wait for; and before 0.12 a process that is killed while it writes ends
    it for all.
    """
    programs = []
    for path in folder.rglob("*-cache"):
        try:
            file = path.stat()
        except OSError:  # another process is thinning, too
            continue
        programs.append((max(file.st_atime, file.st_mtime), file.st_size, path))
    left = most
    for _, size, path in sorted(programs, reverse=True):
        left -= size
        if left < 0 or not size:  # one of no size was written on a full disk
            path.unlink(missing_ok=True)


def _machine() -> str:
    """A name for machines that can run each other's programs: of the kind and features of a CPU.

    A home folder may be shared by others, and not every version of JAX would see the difference.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no Linux
        lines = []
    cpu = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    digest = hashlib.sha256("\n".join([platform.processor(), *cpu]).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{digest}"
