"""The reader of compilers' texts, on small ones whose sums can be seen."""

import pytest

from benchmarks import hlo

LOOP = """HloModule jit_round, is_scheduled=true

%added (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%epoch_goes_on (state: (s32[], f32[8,3])) -> pred[] {
  %five = s32[]{:T(128)} constant(5), metadata={op_name="x"}
  %state = (s32[]{:T(128)}, f32[8,3]{1,0:T(8,128)S(1)}) parameter(0)
  %number = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%number, %five), direction=LT
}

%epoch (state: (s32[], f32[8,3])) -> (s32[], f32[8,3]) {
  %state.1 = (s32[]{:T(128)}, f32[8,3]{1,0:T(8,128)S(1)}) parameter(0)
  %moved = f32[8,3]{0,1} fusion(%state.1), kind=kLoop, calls=%inside, CYCLES(10)
  ROOT %next = (s32[], /*index=1*/f32[8,3]{0,1}) tuple(%state.1, %moved)
}

%inside (p: f32[8,3]) -> f32[8,3] {
  %p = f32[8,3]{1,0} parameter(0)
  ROOT %copied = f32[8,3]{0,1} copy(%p), CYCLES(1000)
}

%chunk_goes_on (all: (s32[], s32[], f32[100,3])) -> pred[] {
  %all = (s32[], s32[], f32[100,3]) parameter(0)
  %index = s32[] get-tuple-element(%all), index=0
  %limit = s32[] get-tuple-element(%all), index=1
  ROOT %less.1 = pred[] compare(%index, %limit), direction=LT
}

%rows (p: f32[100,3], q: s32[8]) -> f32[8,3] {
  %p.1 = f32[100,3]{1,0} parameter(0)
  %q = s32[8]{0} parameter(1)
  ROOT %found = f32[8,3]{1,0} gather(%p.1, %q), slice_sizes={1,3}
}

%chunk (all: (s32[], s32[], f32[100,3])) -> (s32[], s32[], f32[100,3]) {
  %all.1 = (s32[], s32[], f32[100,3]) parameter(0)
  %mine = f32[8,3]{1,0} fusion(%all.1), kind=kCustom, calls=%rows
  %trained = (s32[], f32[8,3]) while(%mine), condition=%epoch_goes_on, body=%epoch
  %sent = f32[8,3]{1,0} all-reduce(%mine), channel_id=4, to_apply=%added, CYCLES(3)
  ROOT %after = (s32[], s32[], f32[100,3]) tuple(%all.1)
}

ENTRY %main (p0: f32[100,3]) -> f32[100,3] {
  %p0 = f32[100,3]{1,0:T(8,128)} parameter(0)
  %turned = f32[3,100]{0,1} transpose(%p0), dimensions={1,0}, CYCLES(7)
  %begun = (s32[], s32[], f32[100,3]) tuple(%turned)
  ROOT %done = (s32[], s32[], f32[100,3]) while(%begun), condition=%chunk_goes_on, body=%chunk
}
"""


def text(source):
    for cycles in (10, 1000, 3, 7):
        told = f'backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'
        source = source.replace(f"CYCLES({cycles})", told)
    return source


def test_cycles_are_summed_over_nested_loops():
    program = hlo.parsed(text(LOOP), trips=4)
    # A fusion's estimate holds what is inside of it. The inner loop counts to 5 by itself.
    assert program.cycles == 7 + 4 * (5 * 10 + 3)
    assert {run.operation.name: (run.times, run.depth) for run in program.runs}["moved"] == (20, 2)


def test_a_loop_may_state_how_often_it_runs():
    stated = 'backend_config={"known_trip_count":{"n":"6"},"known_init_step":{"init":"0"}}'
    source = text(LOOP).replace("body=%chunk\n", f"body=%chunk, {stated}\n")
    assert hlo.parsed(source, trips=4).cycles == 7 + 6 * (5 * 10 + 3)


def test_what_has_no_estimate_is_named():
    program = hlo.parsed(text(LOOP), trips=4)
    unknown = {program.name(run.operation): run.times for run in program.without_estimate}
    assert unknown == {"gather f32[8,3]": 4}
    assert hlo.parsed(text(LOOP).replace("estimated_cycles", "x")).cycles is None


def test_moves_are_found_by_their_size_inside_of_fusions_too():
    program = hlo.parsed(text(LOOP), trips=4)
    assert [each.name for each in program.moves({300})] == ["turned"]
    assert [each.name for each in program.moves({24})] == ["copied"]
    assert program.moves({25}) == ()


@pytest.mark.parametrize(
    ("kind", "there", "here", "count"),
    [
        ("copy-start", "{1,0:T(8,128)S(1)}", "{1,0:T(8,128)}", 0),
        ("copy-start", "{1,0:T(8,128)}", "{1,0:T(8,128)S(1)}", 0),
        ("copy-start", "{0,1:T(8,128)S(1)}", "{1,0:T(8,128)}", 1),
        ("copy-start", "{1,0:T(8,128)}", "{1,0:T(8,128)}", 1),
        ("copy", "{1,0:T(8,128)S(1)}", "{1,0:T(8,128)}", 1),
    ],
)
def test_what_is_brought_to_another_memory_is_no_copy(kind, there, here, count):
    type_ = f"f32[100,3]{there}"
    type_ = f"({type_}, f32[100,3]{here}, u32[])" if kind == "copy-start" else type_
    source = f"ENTRY %main (p: f32[100,3]) -> f32[100,3] {{\n  ROOT %x = {type_} {kind}(%p)\n}}"
    assert len(hlo.parsed(source).moves({300})) == count


def test_exchanges_count_as_often_as_they_are_run():
    assert hlo.parsed(text(LOOP), trips=4).collectives == 4


EXCHANGES = """HloModule jit_round

%half (p: f32[4]) -> f32[16] {
  %p = f32[4] parameter(0)
  ROOT %gathered = f32[16] all-gather(%p), channel_id=3, dimensions={0}
}

%other_half (p: f32[4]) -> f32[16] {
  %p.1 = f32[4] parameter(0)
  ROOT %gathered.1 = f32[16] all-gather(%p.1), channel_id=3, dimensions={0}
}

ENTRY %main (p0: f32[4]) -> f32[16] {
  %p0 = f32[4] parameter(0)
  %one = f32[16] fusion(%p0), kind=kCustom, calls=%half
  %two = f32[16] fusion(%p0), kind=kCustom, calls=%other_half
  %begun = f32[4] all-reduce-start(%p0), channel_id=1, to_apply=%added
  %ended = f32[4] all-reduce-done(%begun)
  ROOT %more = f32[4] all-reduce(%ended), channel_id=1, to_apply=%added
}
"""


def test_an_exchange_counts_once_however_it_is_spread():
    # An all-gather in two fusions, an all-reduce with a begin and an end, and a second one.
    assert hlo.parsed(EXCHANGES).collectives == 3


BRANCHES = """HloModule jit_round

%cheap (p: f32[4]) -> f32[4] {
  ROOT %p = f32[4] negate(%x), CYCLES(3)
}

%dear (p: f32[4]) -> f32[4] {
  ROOT %p.1 = f32[4] negate(%x), CYCLES(1000)
}

%called (p: f32[4]) -> f32[4] {
  ROOT %p.2 = f32[4] negate(%x), CYCLES(7)
}

ENTRY %main (p0: f32[4], p1: pred[]) -> f32[4] {
  %p0 = f32[4] parameter(0)
  %p1 = pred[] parameter(1)
  %chosen = f32[4] conditional(%p1, %p0, %p0), BRANCHES
  ROOT %last = f32[4] call(%chosen), to_apply=%called
}
"""


@pytest.mark.parametrize(
    "branches",
    [
        "branch_computations={%dear, %cheap}",
        "true_computation=%dear, false_computation=%cheap",
    ],
)
def test_of_a_conditional_the_cheapest_branch_counts(branches):
    assert hlo.parsed(text(BRANCHES.replace("BRANCHES", branches))).cycles == 3 + 7
