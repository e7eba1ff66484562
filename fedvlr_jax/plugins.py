"""Python modules of a user's own that add backbones, views and aggregations to what flags take.

`--plugins` names them, in every program and every process, so that each one imports them.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from fedvlr_jax import files
from fedvlr_jax.errors import UserError
from fedvlr_jax.foreign import words_of
from fedvlr_jax.registry import AGGREGATIONS, BACKBONES, VIEWS, importing

_loaded: dict[str, str] = {}  # digests of the plugins of this process, by the modules' names


def load(names: Iterable[str]) -> None:
    """Import plugins, each once.

    Args:
        names: of modules that Python finds, also in the current folder, or paths to .py files.

    Raises:
        UserError: there is none, or it raises, with file and line.
    """
    for name in names:
        module, file = _module(name), None
        if name.endswith(".py"):
            file = Path(os.path.expanduser(name)).resolve()
        if module not in _loaded:
            if file is not None and not file.is_file():
                raise UserError(f"--plugins={name}: there is no such file")
            source = getattr(_imported(name, module, file), "__file__", None)
            _loaded[module] = files.sha256(Path(source)) if source else ""
        source = getattr(sys.modules[module], "__file__", None) or "built in"
        # A run's folder may be opened from elsewhere in the same process.
        if file is not None and file.is_file() and file != Path(source).resolve():
            raise UserError(
                f"--plugins={name}: Python has another module {module} ({source}), expected a file "
                "of another name"
            )


def digest(names: Iterable[str]) -> str:
    """Plugins that are imported, with digests of their files, sorted; "" without any."""
    return "+".join(f"{name} {_loaded[name][:12]}" for name in sorted(set(map(_module, names))))


def place_of(error: BaseException, modules: Collection[str] = _loaded) -> str | None:
    """File and line of the last of a plugin's lines that an exception has come by, if any."""
    roots = {name.partition(".")[0] for name in modules}
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] in roots:
            place = f"{frame.f_code.co_filename}, line {line}"
    return place


def _module(name: str) -> str:
    return Path(name).stem if name.endswith(".py") else name


def _imported(name: str, module: str, file: Path | None) -> Any:
    if module not in sys.modules:
        folder = str(Path.cwd() if file is None else file.parent)
        if folder not in sys.path:
            sys.path.append(folder)  # behind all others, so that it hides none of their modules
        importlib.invalidate_caches()
    importing.append(module)
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        for registry in (BACKBONES, VIEWS, AGGREGATIONS):
            registry.remove(module)
        place = place_of(error, [module])
        if isinstance(error, SyntaxError):
            place = f"{error.filename}, line {error.lineno}"
        if place is None:
            raise UserError(
                f"--plugins={name}: there is no such module ({words_of(error)}), expected one that "
                "Python finds, also in the current folder, or a path to a .py file"
            ) from None
        words = getattr(error, "msg", None) or words_of(error)
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise UserError(f"--plugins={name}: {place}: {kind}{words}") from None
    finally:
        importing.pop()
