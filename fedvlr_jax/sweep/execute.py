"""Doing a sweep: every run once, together where they can be, whatever happens in between."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from fedvlr_jax.config import Config, having
from fedvlr_jax.data import Kept
from fedvlr_jax.errors import UnwritableError, UserError
from fedvlr_jax.foreign import short
from fedvlr_jax.processes import cores
from fedvlr_jax.reporter import Reporter
from fedvlr_jax.settings import Role
from fedvlr_jax.simulation import environment, fit
from fedvlr_jax.simulation.run import Result, train_together
from fedvlr_jax.simulation.simulation import build
from fedvlr_jax.simulation.traced import program_of
from fedvlr_jax.sweep import claims
from fedvlr_jax.sweep.store import FAILED, FINISHED, Row, Store

_SECONDS_BETWEEN_LOOKS = 1.0  # at what other processes have done
_RUNS_FOLDER = "runs"


@runtime_checkable
class Told(Protocol):
    """Hears how a sweep goes on."""

    def note(self, sentence: str) -> None:
        """Something a person should know."""

    def reporter(self, run: str) -> Reporter:
        """Who is told about a run that begins."""

    def ended(self, run: str, row: Row) -> None:
        """A run is finished or has failed."""

    def known(self, rows: Mapping[str, Row]) -> None:
        """What is known of all runs, after some have ended."""


def execute(
    runs: Mapping[str, Config], out: Path, told: Told, most: int = 0, retry_failed: bool = False
) -> dict[str, Row]:
    """Do what is left of a sweep, alone or beside other processes that were told the same.

    Args:
        runs: configurations by name.
        out: folder of the sweep.
        told: hears of every run that this process does.
        most: runs trained in one program, 0 for as many as memory allows.
        retry_failed: whether runs that failed are tried once more.

    Returns:
        How every run ended, by name, in order.

    Raises:
        UserError: the folder cannot be used, holds another sweep, or data cannot be read.
    """
    cores.begin()
    store = Store(out)
    rows = store.rows()
    _check_same(runs, rows, out)
    if not store.has_locks:
        told.note(claims.without_locks(out))
    tried: set[str] = set()

    def is_left(name: str, row: Row | None) -> bool:
        if row is None:
            return True
        if row.status == FAILED:
            return retry_failed and name not in tried
        return row.settings["rounds"] < runs[name].schedule.rounds

    def left() -> list[str]:
        rows = store.rows()
        return [name for name in runs if is_left(name, rows.get(name))]

    if left():
        for note in _environments(rows, out):
            told.note(note)
    kept = Kept()
    while names := left():
        _write_groups(store, runs, names, kept, most)
        done_any = False
        for group in store.groups():
            if not set(group) & set(names):
                continue
            with contextlib.ExitStack() as mine:
                # A group is done by the process that has all of it.
                if not all(mine.enter_context(store.claimed(run)) for run in group):
                    continue
                # Another process may have done some of them since they were listed.
                now = left()
                wanted = [name for name in group if name in now]
                if not wanted:
                    continue
                done_any = True
                tried.update(wanted)
                for name, row in _done(store, runs, group, out, kept, told):
                    if name in wanted:
                        store.add(name, row)
                        told.ended(name, row)
                _tell(told, runs, store)
        if not done_any:  # others have what is left
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    return _tell(told, runs, store)


def _tell(told: Told, runs: Mapping[str, Config], store: Store) -> dict[str, Row]:
    """Tell what is known of these runs; a folder may hold others."""
    with store.alone():  # so that no older rows are written over newer ones
        rows = store.rows()
        known = {name: rows[name] for name in runs if name in rows}
        told.known(known)
    return known


def _write_groups(
    store: Store, runs: Mapping[str, Config], names: Sequence[str], kept: Kept, most: int
) -> None:
    """Find runs that one program can train, for all that are in no group yet."""
    for group in store.groups():
        # Fewer runs are asked for than when it was written: those that are left train alone.
        if set(group) & set(names) and not set(group) <= set(runs):
            store.part(group)
    placed = {run for group in store.groups() for run in group}
    by_program: dict[Config, list[str]] = {}
    for name in names:
        if name not in placed:
            by_program.setdefault(program_of(runs[name]), []).append(name)
    for members in by_program.values():
        config = runs[members[0]]
        size = (len(members) > 1 and (most or _fitting(config, kept))) or 1
        # As equal as can be: groups of one size share their program.
        size = -(-len(members) // -(-len(members) // size))
        store.add_groups([members[k : k + size] for k in range(0, len(members), size)])


def _fitting(config: Config, kept: Kept) -> int:
    if config.execution.private_state == "host":
        return 1
    return fit.runs_together(lambda: build(config, kept.load(config)).federation)


def _done(
    store: Store,
    runs: Mapping[str, Config],
    group: Sequence[str],
    out: Path,
    kept: Kept,
    told: Told,
) -> Iterator[tuple[str, Row]]:
    """Train a group; every run with how it ended."""
    configs = [runs[name] for name in group]
    folders = [out / _RUNS_FOLDER / name for name in group]
    try:
        found = train_together(
            configs, folders, [told.reporter(name) for name in group], kept.load_all(configs)
        )
    except UnwritableError:  # no run is to blame
        raise
    except (UserError, MemoryError) as reason:
        if len(group) > 1:  # one of them may be to blame, or their number
            store.part(group)
            for name in group:
                yield from _done(store, runs, [name], out, kept, told)
            return
        found = [reason]
    for name, config, result in zip(group, configs, found, strict=True):
        if isinstance(result, Result):
            yield name, Row(FINISHED, config.flat(), result.summary)
        else:
            words = str(result) or type(result).__name__
            yield name, Row(FAILED, config.flat(), {"reason": words})


def _check_same(runs: Mapping[str, Config], rows: Mapping[str, Row], out: Path) -> None:
    """Refuse a folder in which a run of this name had other settings."""
    layout = having(Role.LAYOUT)
    for name, config in runs.items():
        if name not in rows:
            continue
        if type(rows[name].settings.get("rounds")) is not int:
            raise UserError(f"--out={out}: run {name} has no rounds, expected a sweep's folder")
        had = Config().flat() | rows[name].settings  # a run may be older than a setting
        wanted = json.loads(json.dumps(config.flat()))
        for setting, value in wanted.items():
            grown = setting == "rounds" and value >= had["rounds"]
            if had.get(setting) != value and not grown and setting not in layout:
                was = short(had.get(setting))
                raise UserError(
                    f"--out={out}: holds another sweep, whose run {name} has --{setting}={was}, "
                    f"now {value}; expected the same settings or another folder"
                )


def _environments(rows: Mapping[str, Row], out: Path) -> list[str]:
    """What differs between the JAX that finished runs were trained with and the one of today.

    Raises:
        UserError: the others would get other numbers.
    """
    now, notes = environment.in_force(), []
    for name, row in rows.items():
        began = row.content.get("jax")
        if not isinstance(began, dict):
            continue
        if (reason := environment.difference(began, now)) is not None:
            raise UserError(
                f"--out={out}: holds a sweep that began with other settings of "
                f"JAX (run {name}): {reason}"
            )
        notes += environment.notes(began, now)
    return [f"{out}: {note}" for note in dict.fromkeys(notes)]
