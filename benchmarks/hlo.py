"""What a compiler's text of a program (HLO) says of its work: loops, cycles, collectives, copies.

A program is a set of computations, each a list of operations. The entry is run once; loops run
their bodies, conditionals one of their branches. What a fusion or a reduction calls is part of one
operation. A TPU's compiler writes its estimate of cycles at most operations that are run.
"""

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_LAYOUT = re.compile(r"\](\{[^}]*\})")
_SPACE = re.compile(r"S\(\d+\)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CHANNEL = re.compile(r"channel_id=\d+")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|to_apply|called_computations)=\{?([^,}]+(?:, ?%[^,}]+)*)\}?")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}|(?:true|false)_computation=(%?[\w.\-]+)")

_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_MOVES = ("copy", "copy-start", "transpose", "reshape", "bitcast-convert")
# Operations that do nothing when a program runs, or end what another one began.
_FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "add-dependency",
    "partition-id",
    "replica-id",
    "opt-barrier",
)


@dataclass(frozen=True)
class Operation:
    """One operation: its name, the type of its result, its kind, its operands, all that follows."""

    name: str
    type: str
    kind: str
    operands: tuple[str, ...]
    rest: str

    @property
    def cycles(self) -> int | None:
        """The compiler's estimate, None where it gives none."""
        found = _CYCLES.search(self.rest)
        return int(found[1]) if found else None

    def called(self, name: str) -> str:
        """The computation that an attribute names."""
        return re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)[1]

    @property
    def size(self) -> int:
        """Numbers in the result, in its first array if it has several."""
        found = _ARRAY.search(self.type)
        return math.prod(map(int, filter(None, found[2].split(",")))) if found else 0


@dataclass(frozen=True)
class Run:
    """An operation that is run, and how often; `depth` counts the loops around it."""

    operation: Operation
    times: int
    depth: int


@dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
        entry: name of the computation that is run.
        computations: operations by the name of their computation.
        trips: how often a loop runs whose number of iterations the text does not tell.
    """

    entry: str
    computations: dict[str, tuple[Operation, ...]]
    trips: int = 1

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """All operations that are run; of a conditional those of the cheapest branch.

        Loops of an unknown length inside of others are counted as one iteration.
        """
        return tuple(self._runs(self.entry, 1, 0))

    @property
    def cycles(self) -> int | None:
        """The sum of all estimates: a lower bound. None where there is no estimate at all."""
        found = [run.times * run.operation.cycles for run in self.runs if run.operation.cycles]
        return sum(found) if found else None

    @property
    def without_estimate(self) -> tuple[Run, ...]:
        """Operations that the compiler gives no estimate of; those on single numbers left out."""
        return tuple(
            run
            for run in self.runs
            if run.operation.cycles is None
            and run.operation.size > 1
            and run.operation.kind not in _FREE
            and not run.operation.kind.endswith("-done")
        )

    @property
    def collectives(self) -> int:
        """How many exchanges between devices are run, each counted where it begins."""
        times = {}
        for run in self.runs:
            for operation in self._whole(run.operation):
                if operation.kind.removesuffix("-start") in _COLLECTIVES:
                    name = operation.name
                    if operation is not run.operation:
                        # Spread over several fusions, which run beside other work.
                        name = _CHANNEL.search(operation.rest)[0]
                    times[name] = run.times
        return sum(times.values())

    def moves(self, sizes: Collection[int]) -> tuple[Operation, ...]:
        """Operations that only move numbers, as many as one of `sizes`, in whatever shape.

        They are looked for inside of fusions, too, and each counts once, however often it is run.
        What a TPU brings from its memory to the core's own, or back, is not among them: all that is
        read and written goes that way.
        """
        return tuple(
            operation
            for operations in self.computations.values()
            for operation in operations
            if operation.kind in _MOVES and operation.size in sizes and not _nearer(operation)
        )

    def name(self, operation: Operation) -> str:
        """The kind of an operation, of a fusion what it is named after, and its result's shape."""
        found = _ARRAY.search(operation.type)
        kind = operation.kind
        if kind == "fusion":
            inside = [each.kind for each in self._whole(operation)]
            kind = next((each for each in ("scatter", "gather", "sort") if each in inside), kind)
        elif kind == "custom-call":
            kind = _TARGET.search(operation.rest)[1]
        return f"{kind} {found[0]}" if found else kind

    def _runs(self, computation: str, times: int, depth: int) -> Iterator[Run]:
        for operation in self.computations[computation]:
            if operation.kind == "while":
                trips = self._trips_of(operation, depth)
                for name in ("condition", "body"):
                    yield from self._runs(operation.called(name), times * trips, depth + 1)
            elif operation.kind == "conditional":
                branches = [tuple(self._runs(name, times, depth)) for name in _branches(operation)]
                yield from min(branches, key=_known_cycles)
            elif operation.kind == "call":
                yield from self._runs(operation.called("to_apply"), times, depth)
            else:
                yield Run(operation, times, depth)

    def _trips_of(self, loop: Operation, depth: int) -> int:
        """Iterations of a loop: those it states, those its condition counts to, or `trips`."""
        if stated := _TRIPS.search(loop.rest):
            return int(stated[1])
        condition = {each.name: each for each in self.computations[loop.called("condition")]}
        *_, root = condition.values()
        if root.kind == "compare" and "direction=LT" in root.rest:
            limit = condition[root.operands[1]]
            if limit.kind == "constant":
                return int(re.match(r"(\d+)\)", limit.rest)[1])
        return 1 if depth else self.trips

    def _whole(self, operation: Operation) -> Iterator[Operation]:
        """An operation, and all that it calls."""
        yield operation
        for group in _CALLED.findall(operation.rest):
            for name in group.replace("%", "").split(","):
                for inner in self.computations.get(name.strip(), ()):
                    yield from self._whole(inner)


def parsed(text: str, trips: int = 1) -> Program:
    """The program in a compiler's text.

    Args:
        text: all computations, the entry among them.
        trips: how often a loop runs whose number of iterations the text does not tell.
    """
    entry, computations, current = "", {}, None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _OPERATION.match(line)):
            current.append(_operation(found[1], found[2]))
    return Program(entry, {name: tuple(found) for name, found in computations.items()}, trips)


def _operation(name: str, text: str) -> Operation:
    end = _closing(text) + 1 if text.startswith("(") else text.index(" ")
    type_, text = text[:end], text[end:].lstrip()
    kind, _, text = text.partition("(")
    end = _closing("(" + text) - 1
    return Operation(name, type_, kind, tuple(_OPERAND.findall(text[:end])), text)


def _closing(text: str) -> int:
    """Where the parenthesis closes that the text begins with."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place
    raise ValueError(f"a parenthesis is not closed: {text[:80]}")


def _branches(conditional: Operation) -> list[str]:
    return [
        name.strip().removeprefix("%")
        for group in _BRANCHES.findall(conditional.rest)
        for name in (group[0] or group[1]).split(",")
    ]


def _nearer(operation: Operation) -> bool:
    """Whether an operation brings numbers as they lie from one memory space to another."""
    if operation.kind != "copy-start":
        return False
    there, here = _LAYOUT.findall(operation.type)[:2]
    return there != here and _SPACE.sub("", there) == _SPACE.sub("", here)


def _known_cycles(runs: tuple[Run, ...]) -> int:
    return sum(run.times * (run.operation.cycles or 0) for run in runs)
