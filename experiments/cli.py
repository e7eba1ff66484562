"""What the mains share: flags made from the configuration, errors as one sentence, exit codes."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
from absl import flags

from experiments import bugs, interrupts, lists
from fedvlr_jax import compilation
from fedvlr_jax.config import LISTS, leaves, load_plugins
from fedvlr_jax.errors import Stopped, UserError, naming_flags
from fedvlr_jax.foreign import printable
from fedvlr_jax.processes import start
from fedvlr_jax.settings import (
    FOLDER,
    Check,
    UnfitError,
    check_of,
    fitted,
    parsed,
    setting,
    setting_type,
)
from fedvlr_jax.trackers import tracked

_WIDTH = 96  # of lines of help


@dataclasses.dataclass(frozen=True)
class Quiet:
    """What a program has that prints how far it has come."""

    quiet: bool = setting(False, "Print only the result and what went wrong.")


@dataclasses.dataclass(frozen=True)
class Compiling:
    """What a program has that compiles; `run` obeys it."""

    compilation_cache: Path | None = setting(
        None,
        "Folder that keeps compiled programs for the next start, or off. The default is this "
        "user's ~/.cache/fedvlr_jax/compiled, or the folder that JAX_COMPILATION_CACHE_DIR names.",
        (lambda v: v != "", "a folder or 'off'"),
    )


@dataclasses.dataclass(frozen=True)
class Tracking:
    """What a program has whose runs trackers may keep."""

    tracker: str = setting(
        "",
        "Trackers that keep settings, evaluations and test metrics of every run, beside "
        "TensorBoard's files, separated by commas: wandb (Weights & Biases, offline, in wandb/ of "
        "the run's folder), mlflow (a file of SQLite in mlflow/). Nothing leaves the machine.",
    )


def trackers(values: flags.FlagValues) -> list[str]:
    """The trackers that --tracker names; none where the program has no such flag.

    Raises:
        UserError: a name that is none, or a package that is not installed.
    """
    text = values["tracker"].value if "tracker" in values else ""
    chosen = lists.names("tracker", text, tracked.NAMES) if text else []
    for name in chosen:
        tracked.opener(name)
    return chosen


class _Value(flags.ArgumentParser):
    """Reads a number or a path and says what is expected in the words of `fedvlr_jax.settings`."""

    def __init__(self, kind: type, check: Check) -> None:
        self._kind, self._check = kind, check

    def parse(self, argument: Any) -> int | float | Path:
        """The value, from text or as a default.

        Raises:
            ValueError: it is none of its kind, or out of range; the text is the end of a sentence.
        """
        read = parsed if isinstance(argument, str) else fitted
        try:
            return read(self._kind, self._check, argument)
        except UnfitError as expected:
            raise ValueError(f"expected {expected}") from None

    def flag_type(self) -> str:
        """As in absl's own parsers."""
        return "string" if self._kind is Path else self._kind.__name__


def defined(define_flags: Callable[[flags.FlagValues], None]) -> flags.FlagValues:
    """The flags that a program defines."""
    values = flags.FlagValues()
    define_flags(values)
    return values


def define(into: flags.FlagValues, *groups: type) -> None:
    """Define a flag for every field of dataclasses whose fields are settings."""
    for group in groups:
        define_settings(into, {field.name: field for field in dataclasses.fields(group)})


def define_settings(
    into: flags.FlagValues,
    settings: Mapping[str, dataclasses.Field],
    without: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Define a flag for every one of the `settings` but those in `without`.

    Args:
        into: gets the flags.
        settings: by name; beside what a configuration holds there may be a `bool`, a `Path`, and a
            `list[str]`, whose flag may be given more than once.
        without: names of settings that get no flag.
        defaults: of the program, where they are others than the settings' own.
    """
    for name, leaf in settings.items():
        if name in without:
            continue
        kind, default, text = leaf.type, leaf.default, leaf.metadata["help"]
        if kind == list[str]:
            flags.DEFINE_multi_string(name, list(default), text, flag_values=into)
        elif kind is bool:
            flags.DEFINE_boolean(name, default, text, flag_values=into)
        elif kind in (Path, Path | None):
            define_path(into, name, default, text, check_of(leaf))
        elif setting_type(leaf) is str:
            default = ",".join(map(str, default)) if isinstance(default, tuple) else default
            flags.DEFINE_string(name, default, text, flag_values=into)
        else:
            define_number(into, name, default, text, check_of(leaf), setting_type(leaf))
    for name, value in (defaults or {}).items():
        into.set_default(name, value)


def define_number(
    into: flags.FlagValues,
    name: str,
    default: float | None,
    text: str,
    check: Check,
    kind: type = int,
) -> None:
    """Define a flag that takes a number in the range of `check`, an int or a float by `kind`."""
    flags.DEFINE(_Value(kind, check), name, default, text, into, flags.ArgumentSerializer())


def define_path(
    into: flags.FlagValues, name: str, default: str | None, text: str, check: Check = FOLDER
) -> None:
    """Define a flag that takes a path; of "~" at its beginning no shell has to know."""
    flags.DEFINE(_Value(Path, check), name, default, text, into, flags.ArgumentSerializer())


def given_settings(
    values: flags.FlagValues, settings: Iterable[str], without: Sequence[str] = ()
) -> dict[str, Any]:
    """The settings' values, those that nobody gave left out."""
    return {
        name: values[name].value
        for name in settings
        if name not in without and values[name].present
    }


def tell(line: str) -> None:
    """Print a line at once."""
    print(printable(line), flush=True)


def command(module: str, *arguments: str) -> str:
    """A command line that a shell takes as it is printed."""
    return printable(shlex.join(["python", "-m", module, *arguments]))


def run(
    main: Callable[..., None],
    values: flags.FlagValues,
    usage: str,
    arguments: Sequence[str] = (),
) -> None:
    """Parse the command line and run `main`, and part from other processes if it joined them.

    `main` takes the flags, and what stands on the command line for each of `arguments`.

    A mistake of the user's (a flag that is unknown or of the wrong type, bad data, a `UserError`
    from the library, a file that the system refuses, too little memory) ends in one sentence on
    stderr and exit code 2; `--help` in 0; Ctrl-C, SIGTERM and SIGHUP in 130, 143 and 129. Where
    whoever reads the output has gone (`... | head`), the program ends in silence and 1. Whatever
    else is raised is a bug: one sentence that names a file with the traceback (`bugs.py`), and 1.
    """
    for stream in _streams():
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a bar on a terminal that has no bars
    try:
        with naming_flags(), interrupts.heard():
            code = _fenced(lambda: _attempt(main, values, usage, arguments), values)
        for stream in _streams():
            stream.flush()  # here and not at exit, where Python would tell of a closed pipe
    except BrokenPipeError:
        code = _end_output()
    if code:
        sys.exit(code)


def _attempt(
    main: Callable[..., None], values: flags.FlagValues, usage: str, arguments: Sequence[str]
) -> None:
    if any(a in ("--help", "-help", "-h", "-?") for a in sys.argv[1:]):
        print(_help(values, usage), flush=True)
        return
    _check_flags(values, sys.argv[1:])
    rest = _read(values, sys.argv)
    if len(rest) > len(arguments):
        flag = next((name for name in ("rounds", "out") if name in values), "help")
        raise UserError(
            f"{rest[len(arguments)]}: unexpected argument, expected flags like --{flag}=..."
        )
    if len(rest) < len(arguments):
        raise UserError(f"{arguments[len(rest)]} is missing, expected {' '.join(arguments)}")
    if "plugins" in values and values.plugins is not None:
        load_plugins(values.plugins)
    if "compilation_cache" in values:
        warning = compilation.keep(values.compilation_cache)
        if warning is not None:
            print(f"warning: {printable(warning)}", file=sys.stderr)
    main(values, *rest)
    start.part()


def _fenced(attempt: Callable[[], None], values: flags.FlagValues) -> int:
    """The exit code of an attempt, after saying what it raised; other processes hear of it."""
    try:
        code = _answered(attempt, values)
    except BrokenPipeError:
        start.abandon(1)
        raise
    except KeyboardInterrupt:  # once more, while the first one was told
        code = interrupts.code()
    except BaseException as error:
        # Perhaps no bug, but what another process has left: then the watch ends this one.
        if start.has_joined():
            start.hear_of_others()
        with contextlib.suppress(OSError, ValueError):  # nowhere to print to
            out = values["out"].value if "out" in values else None
            print(bugs.sentence(error, out), file=sys.stderr)
        code = 1
    if code:
        start.abandon(code)
    return code


def _answered(attempt: Callable[[], None], values: flags.FlagValues) -> int:
    """The exit code of an attempt that ends well, or in what is no bug."""
    try:
        attempt()
    except (KeyboardInterrupt, Stopped) as stop:
        if isinstance(stop, Stopped):
            start.part()  # all of several processes stop
        print("interrupted; the same command goes on from what is on disk", file=sys.stderr)
        return interrupts.code()
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        print(f"error: {sentence}{_how_to_sweep(sentence, values)}", file=sys.stderr)
        return 2
    return 0


def _sentence(error: Exception) -> str | None:
    """What to tell of a mistake of the user's, or of what the system refuses; None of a bug."""
    match error:
        case flags.Error() | UserError() | UnicodeDecodeError():
            return str(UserError(str(error)))  # of absl's, too, one line
        case OSError(errno=int()) if not isinstance(error, BrokenPipeError):
            where = "" if error.filename is None else f"{printable(str(error.filename))}: "
            return f"{where}{error.strerror}"
        case MemoryError():
            return f"not enough memory for these settings{f' ({error})' if str(error) else ''}"
        case jax.errors.JaxRuntimeError() if "RESOURCE_EXHAUSTED" in str(error):
            return "not enough memory on the devices for these settings"
    return None


def _streams() -> list[TextIO]:
    """What is printed to; Python has none where it was started without."""
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]


def _end_output() -> int:
    """Let what is printed from now on, and what still waits to be, go nowhere; the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in _streams():
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    return 1


def _read(values: flags.FlagValues, arguments: Sequence[str]) -> list[str]:
    """Give the flags their values; what is left of the command line."""
    try:
        return values(arguments)[1:]
    except flags.IllegalFlagValueError as error:
        # absl's own words for --quiet=x stand in brackets; others have those of `_Value`.
        given, _, illegal = str(error).removeprefix("flag ").partition(": (")
        raise UserError(f"{given}: expected true or false" if illegal else given) from None
    except flags.UnrecognizedFlagError as error:
        close = difflib.get_close_matches(error.flagname, list(values), n=1)
        like = f", like --{close[0]}" if close else ""
        raise UserError(
            f"--{error.flagname}: unknown flag, expected one that --help names{like}"
        ) from None
    except ValueError as error:  # --noquiet=x
        given = str(error).split()[0]
        name = given.split("=")[0].removeprefix("--no")
        raise UserError(f"{given}: takes no value, expected --{name} or --no{name}") from None


def _how_to_sweep(sentence: str, values: flags.FlagValues) -> str:
    """The end of a sentence about a setting that was given several values, for a sweep."""
    found = re.match(r"--(\w+)=(\S+,\S+): expected", sentence)
    way = next((name for name in ("sweep", "search") if name in values), None)
    single = leaves().keys() - LISTS.keys() - {"clients"}  # of which a sweep takes several
    if not found or not way or found[1] not in single:
        return ""
    return f"; to try several values, give --{way}={found[1]}={found[2]}"


def _check_flags(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Refuse what absl takes and nobody means: a flag that appears twice, or a file of flags."""
    seen = set()
    for argument in arguments:
        name = argument.removeprefix("--").split("=")[0]
        if name.lstrip("-") in ("flagfile", "undefok"):  # absl's own, which no page tells of
            raise UserError(f"{argument}: unknown flag, expected one that --help names")
        if not argument.startswith("--") or name not in values:
            continue
        if name in seen and not isinstance(values[name], flags.MultiFlag):
            raise UserError(f"{argument}: --{name} is given twice, expected once")
        seen.add(name)


def _help(values: flags.FlagValues, usage: str) -> str:
    lines = [textwrap.dedent(usage).strip(), *(["", "Flags:"] if len(values) else [])]
    for name in values:
        flag = values[name]
        text = f"--{name}: {flag.help}"
        if flag.default not in (None, ""):
            # A program's own default takes the place of the one that a setting's help tells.
            text = f"{re.sub('; default [^.]+[.]$', '.', text)} (default {flag.default})"
        lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(lines)
