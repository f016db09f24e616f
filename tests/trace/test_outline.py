"""The outline of a trace, against what the whole trace says."""

from pathlib import Path

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.trace.divergence import differs, is_tie
from prunetui.engine.trace.file import TraceWriter, is_being_written, read_trace
from prunetui.engine.trace.outline import Divergence, Outline, ReadingCancelled, read_outline
from prunetui.engine.trace.records import Branch, Event, Read, Rewind, Step, Switch

from ..support.traces import broken_step, make_header, make_lens, make_step, write_whole_trace


def outline_of(steps: int, branches: int, *first: object) -> Outline:
    divergence = None
    if first:
        step, lane, tie = first
        divergence = msgspec.convert({"step": step, "lane": lane, "tie": tie}, Divergence)
    return Outline(steps=steps, branches=branches, divergence=divergence)


DATA = Path(__file__).parent.parent / "data"


def never() -> bool:
    return False


def write(folder: Path, *events: Event) -> Path:
    writer = TraceWriter(folder / "a.trace.jsonl", make_header())
    for event in events:
        writer.write(event)
    writer.close()
    return writer.path


def whole_outline(path: Path) -> Outline:
    """Outline of the trace as a replay opens it."""
    trace = read_trace(path)
    first = [
        Divergence(step=step.step, lane=lane, tie=is_tie(trace.header, step, lane))
        for step in trace.steps
        for lane in range(1, len(trace.header.lanes))
        if differs(step, lane)
    ]
    return Outline(
        steps=len(trace.steps),
        branches=len(trace.branches),
        divergence=first[0] if first else None,
    )


def close_call(step: Step) -> Step:
    """The step with the baseline's two best logits closer than the noise floor."""
    baseline = step.lanes[0]
    assert baseline is not None
    return msgspec.structs.replace(
        step, lanes=[msgspec.structs.replace(baseline, margin=1e-6), *step.lanes[1:]]
    )


STEPS = [make_step(number) for number in range(10)]


@pytest.mark.parametrize(
    ("events", "outline"),
    [
        ([], outline_of(0, 1)),
        (STEPS[:4], outline_of(4, 1)),
        (STEPS, outline_of(10, 1, 4, 1, False)),
        ([*STEPS[:4], close_call(STEPS[4])], outline_of(5, 1, 4, 1, True)),
        ([*STEPS[:3], broken_step(3, 2)], outline_of(4, 1, 3, 2, False)),
        ([*STEPS, Rewind(to=3)], outline_of(3, 1)),
        ([*STEPS, Branch(parent=0, at=2), STEPS[2]], outline_of(3, 2)),
        ([*STEPS, Branch(parent=0, at=2), Switch(to=0)], outline_of(10, 2, 4, 1, False)),
        ([*STEPS, Read(step=2, lens=make_lens())], outline_of(10, 1, 4, 1, False)),
    ],
)
def test_an_outline_is_of_the_open_branch(
    events: list[Event], outline: Outline, tmp_path: Path
) -> None:
    path = write(tmp_path, *events)
    assert read_outline(path, never) == outline == whole_outline(path)


@pytest.mark.parametrize("name", ["natalia", "choice", "lens"])
def test_recorded_traces_have_the_outline_that_they_replay_with(name: str) -> None:
    path = DATA / f"{name}.trace.jsonl"
    assert read_outline(path, never) == whole_outline(path)


def test_every_record_is_passed_over(tmp_path: Path) -> None:
    path = write_whole_trace(tmp_path)
    assert read_outline(path, never) == whole_outline(path)


def test_a_cut_last_line_is_the_end_of_an_outline_too(tmp_path: Path) -> None:
    path = write(tmp_path, *STEPS[:5])
    path.write_bytes(path.read_bytes()[:-1])
    assert read_outline(path, never) == outline_of(4, 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"kind":"step","step":2', "line 4 of .* is damaged"),
        (msgspec.json.encode(STEPS[5]), r"line 4 of .* is damaged \(step 5 cannot follow 2 steps"),
        (msgspec.json.encode(Rewind(to=9)), "cannot rewind 2 steps to 9"),
        (msgspec.json.encode(make_step(2, variants=1)), "do not fit the header's lanes"),
        (msgspec.json.encode(Read(step=7, lens=make_lens())), "there is no step 7 to read"),
        (b'{"kind":"step","step":%d,"lanes":[]}' % 10**400, "line 4 of .* is damaged"),
    ],
    ids=["cut", "number", "rewind", "lanes", "read", "large"],
)
def test_damage_is_told_as_it_is_of_the_whole_trace(
    line: bytes, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, *STEPS[:2])
    with path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(UserError, match=message):
        read_outline(path, never)
    with pytest.raises(UserError, match=message):
        read_trace(path)


def test_reading_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    answers = iter([False, False, True])
    with pytest.raises(ReadingCancelled):
        read_outline(write(tmp_path, *STEPS), lambda: next(answers))


def test_a_trace_is_being_written_until_its_writer_is_closed(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "a.trace.jsonl", make_header())
    assert is_being_written(writer.path)
    writer.close()
    assert not is_being_written(writer.path)
    assert not is_being_written(tmp_path / "none")
