"""Blames in a trace: kept with their step through files, rewinds, branches and resumed traces."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.trace.blame import (
    Blame,
    Cumulative,
    NextToken,
    Part,
    WhereInDepth,
    find_blame,
)
from prunetui.engine.trace.file import TraceWriter, read_trace
from prunetui.engine.trace.outline import read_outline
from prunetui.engine.trace.records import Blamed, Branch, Event, Rewind, Step, Switch
from prunetui.engine.trace.trace import Trace

from ..support.blames import OUTSIDE, attention, in_text, make_blame, mlp, next_token, part_blame
from ..support.traces import make_header, make_step

BLAME = make_blame()
OWN = msgspec.structs.replace(BLAME, tokens="lane")
STEPS = [make_step(number) for number in range(4)]


def write(folder: Path, *events: Event) -> Path:
    writer = TraceWriter(folder / "a.trace.jsonl", make_header())
    for event in events:
        writer.write(event)
    writer.close()
    return writer.path


def blamed(step: Step, *blames: Blame) -> Step:
    return msgspec.structs.replace(step, blames=[*blames])


def changed(blame: Blame = BLAME, **changes: Any) -> Blame:
    return msgspec.structs.replace(blame, **changes)


def test_a_blame_is_read_with_its_step_and_takes_the_place_of_one_on_the_same_tokens(
    tmp_path: Path,
) -> None:
    newer = changed(OWN, seconds=9.0)
    events = [Blamed(step=2, blame=OWN), Blamed(step=2, blame=BLAME), Blamed(step=2, blame=newer)]
    path = write(tmp_path, *STEPS, *events)
    trace = read_trace(path)
    assert trace.steps == [*STEPS[:2], blamed(STEPS[2], BLAME, newer), STEPS[3]]
    assert find_blame(trace.steps[2].blames, 1, "lane") == newer
    assert find_blame(trace.steps[2].blames, 2, "lane") is None
    assert read_outline(path, lambda: False).steps == 4


def test_a_rewind_takes_blames_back_and_branches_share_those_of_the_steps_they_share(
    tmp_path: Path,
) -> None:
    other = msgspec.structs.replace(STEPS[2], seconds=7.0)
    path = write(
        tmp_path,
        *STEPS,
        Blamed(step=2, blame=BLAME),
        Rewind(to=2),
        STEPS[2],
        Branch(parent=0, at=2),
        other,
        # Step 1 is of both branches, step 2 of the new one alone.
        Blamed(step=1, blame=changed(in_text=None)),
        Blamed(step=2, blame=BLAME),
        Switch(to=0),
    )
    trace = read_trace(path)
    shared = blamed(STEPS[1], changed(in_text=None))
    assert trace.branches == [
        [STEPS[0], shared, STEPS[2]],
        [STEPS[0], shared, blamed(other, BLAME)],
    ]
    assert trace.branches[0][1] is trace.branches[1][1]
    # A resumed session writes its trace anew, steps with what was found of them.
    again = read_trace(write(tmp_path / "again", *trace.events()))
    assert (again.branches, again.branch) == (trace.branches, 0)


def test_a_blame_cut_in_its_line_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, *STEPS, Blamed(step=2, blame=BLAME))
    path.write_bytes(path.read_bytes()[:-2])
    assert read_trace(path).steps == STEPS
    assert read_outline(path, lambda: False).steps == 4


def with_part(*parts: Part) -> Blame:
    blames = [part_blame(part, next_token(1.0), next_token(1.0)) for part in parts]
    return changed(parts=blames, cumulative=Cumulative(parts=[], after=[], forms=0))


def with_given_back(*parts: Part, after: int) -> Blame:
    return changed(cumulative=Cumulative(parts=[*parts], after=[next_token(1.0)] * after, forms=3))


def with_tried(latest: int | None, *positions: int, prompt: int = 3) -> Blame:
    return changed(in_text=in_text(latest, {at: next_token(1.0) for at in positions}, prompt))


def with_points(last: int, every: int) -> Blame:
    points: list[NextToken | None] = [next_token(1.0)]
    return changed(in_depth=WhereInDepth(last=points * last, every=points * every))


DAMAGED = {
    "baseline": (changed(lane=0), "it blames lane 0, which is no variant"),
    "lane": (changed(lane=3), "it blames lane 3, which is no variant"),
    "layer": (with_part(attention(3)), "not of the parts"),
    "no layer": (with_part(Part(sublayer="mlp")), "not of the parts"),
    "a layer outside": (with_part(Part(sublayer="outside", layer=1)), "not of the parts"),
    "twice": (with_part(mlp(1), mlp(1)), "not of the parts"),
    "order": (with_part(mlp(1), attention(1)), "not of the parts"),
    "outside first": (with_part(OUTSIDE, attention(1)), "not of the parts"),
    "given back, not pruned": (with_given_back(mlp(2), after=1), "not of the parts"),
    "given back twice": (with_given_back(mlp(1), mlp(1), after=2), "not of the parts"),
    "after": (with_given_back(mlp(1), after=2), "not of the parts"),
    "prompt": (with_tried(0, 0, prompt=4), "does not fit the positions"),
    "none tried": (with_tried(None), "does not fit the positions"),
    "position 0": (with_tried(1, 1, 2), "does not fit the positions"),
    "positions": (with_tried(0, 0, 2, 1), "does not fit the positions"),
    "after the last": (with_tried(0, 0, 5), "does not fit the positions"),
    "not tried": (with_tried(1, 0, 2), "does not fit the positions"),
    "last": (with_points(6, 7), "does not fit the header's layers"),
    "every": (with_points(7, 8), "does not fit the header's layers"),
    "no point before attention 0": (
        changed(in_depth=WhereInDepth(last=[None] * 7, every=[next_token(1.0)] * 7)),
        "does not fit the header's layers",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_blame_is_told_as_damage(name: str, tmp_path: Path) -> None:
    blame, message = DAMAGED[name]
    for events in ([*STEPS, Blamed(step=2, blame=blame)], [*STEPS[:2], blamed(STEPS[2], blame)]):
        path = write(tmp_path, *events)
        with pytest.raises(UserError) as told:
            read_trace(path)
        assert str(told.value).startswith(f"line {len(events) + 1} of {path} is damaged (")
        assert message in str(told.value)
        assert f"`head -n {len(events)}`" in str(told.value)
        path.unlink()


def test_a_blame_of_a_step_that_is_not_there_and_two_of_the_same_are_damage(tmp_path: Path) -> None:
    path = write(tmp_path, *STEPS, Blamed(step=4, blame=BLAME))
    for read in (read_trace, lambda path: read_outline(path, lambda: False)):
        with pytest.raises(UserError, match=r"line 6 of .* damaged \(there is no step 4"):
            read(path)
    path.unlink()
    with pytest.raises(UserError, match="blamed twice on the same tokens"):
        read_trace(write(tmp_path, *STEPS[:2], blamed(STEPS[2], BLAME, OWN, BLAME)))


PARALLEL: list[NextToken | None] = [next_token(1.0), *[None, next_token(1.0)] * 3]


def test_what_a_blame_may_be_is_read(tmp_path: Path) -> None:
    """Bounds: the last layer, the last position before the step, no part and nothing given back."""
    edges = [
        with_part(attention(0), mlp(0), attention(2), mlp(2), OUTSIDE),
        with_part(),
        with_tried(None, 0),
        with_tried(4, 0, 4),
        changed(in_depth=WhereInDepth(last=PARALLEL, every=PARALLEL)),
        changed(lane=2, floor=None, in_text=None, in_depth=None),
    ]
    for blame in edges:
        path = write(tmp_path, *STEPS, Blamed(step=2, blame=blame))
        assert read_trace(path).steps[2].blames == [blame]
        path.unlink()


def test_a_blame_added_again_is_seen_in_every_branch_that_shares_its_step() -> None:
    trace = Trace(make_header())
    for step in STEPS:
        trace.append(step)
    trace.fork(3)
    trace.add_blame(2, BLAME)
    trace.add_blame(2, OWN)
    trace.add_blame(2, BLAME)
    assert [steps[2].blames for steps in trace.branches] == [[OWN, BLAME]] * 2
    with pytest.raises(ValueError, match="there is no step 3"):
        trace.add_blame(3, BLAME)
