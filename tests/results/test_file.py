"""Evaluation files: what was written is read again, and nothing that was written is lost."""

import math
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.results.file import (
    ResultsFollower,
    ResultsWriter,
    is_evaluation,
    read_results,
)
from prunetui.engine.results.records import SUFFIX
from prunetui.engine.trace.file import is_being_written, read_trace

from ..support.results import (
    make_end,
    make_header,
    make_item,
    make_lines,
    make_results,
    write_results,
)
from ..support.traces import write_whole_trace

REPOSITORY = Path(__file__).parent.parent.parent


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write_results(tmp_path)
    results = read_results(path)
    assert results == make_results()
    assert results.complete
    assert is_evaluation(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_numbers_are_read_to_the_bit(tmp_path: Path) -> None:
    rng = random.Random(0)
    numbers = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1e16, 1e22, 1 / 3, 123456789.0]
    numbers += [math.ldexp(rng.random(), rng.randrange(-300, 300)) for _ in range(200)]
    item = make_item("options", 0)
    answers = [msgspec.structs.replace(item.answers[0], scores={"x,none": numbers})]
    answers += [
        msgspec.structs.replace(answer, logprobs=numbers[4 * n : 4 * n + 4], kl=number)
        for n, (answer, number) in enumerate(zip(item.answers[1:], numbers, strict=False))
    ]
    path = tmp_path / f"a{SUFFIX}"
    writer = ResultsWriter(path, make_header())
    writer.write([msgspec.structs.replace(item, answers=answers)])
    read = read_results(path).items["options"][0].answers
    assert repr(read) == repr(answers)
    assert read == answers


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    item = make_item("options", 0)
    answer = msgspec.structs.replace(item.answers[0], logprobs=[math.nan, math.inf, 0.0, -1.0])
    item = msgspec.structs.replace(item, answers=[answer, *item.answers[1:]], doc={"n": math.nan})
    path = tmp_path / f"a{SUFFIX}"
    writer = ResultsWriter(path, make_header())
    writer.write([item])
    read = read_results(path).items["options"][0]
    assert read.answers[0].logprobs == [None, None, 0.0, -1.0]
    assert read.doc == {"n": None}


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIX}"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        ResultsWriter(path, make_header())
    assert path.read_text() == "mine"


def test_all_lines_of_a_chunk_are_in_the_file_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIX}"
    writer = ResultsWriter(path, make_header())
    assert read_results(path).items == {}
    chunk = [make_item("options", index) for index in range(3)]
    writer.write(chunk)
    assert read_results(path).items == {"options": chunk}


# -- going on -------------------------------------------------------------------------------------


def go_on(path: Path) -> int:
    """Write what a file lacks of `make_lines`; return the number of lines that were there."""
    writer, results = ResultsWriter.resume(path)
    count = sum(map(len, results.items.values())) + len(results.ends)
    writer.write(make_lines()[count:])
    writer.close()
    return count


def test_a_file_cut_anywhere_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole = write_results(tmp_path).read_bytes()
    first = whole.index(b"\n") + 1
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    path = tmp_path / f"cut{SUFFIX}"
    cuts = {
        first,
        len(whole),
        *ends,
        *(end - 1 for end in ends[1:]),
        *range(first, len(whole), 2503),
    }
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        assert go_on(path) == sum(end <= cut for end in ends) - 1
        assert path.read_bytes() == whole


WRITE = """
import os, signal, sys
from pathlib import Path
from prunetui.engine.results import file
from tests.support.results import make_header, make_lines

path, limit = Path(sys.argv[1]), int(sys.argv[2])

def write_until_killed(raw, content):
    rest = limit - raw.tell()
    raw.write(content[:rest])
    if rest < len(content):
        os.kill(os.getpid(), signal.SIGKILL)

file.write_all = write_until_killed
if path.exists():
    writer, results = file.ResultsWriter.resume(path)
    count = sum(map(len, results.items.values())) + len(results.ends)
else:
    writer, count = file.ResultsWriter(path, make_header()), 0
lines = make_lines()
for first in range(count, len(lines), 4):
    writer.write(lines[first : first + 4])
print("done")
"""


def test_a_killed_writer_loses_a_line_and_leaves_no_lock(tmp_path: Path) -> None:
    whole = write_results(tmp_path).read_bytes()
    path = tmp_path / f"killed{SUFFIX}"
    for share in (0.4, 0.8):
        limit = int(len(whole) * share)
        process = subprocess.run(
            [sys.executable, "-c", WRITE, path, str(limit)], cwd=REPOSITORY, check=False
        )
        assert process.returncode == -signal.SIGKILL
        assert path.read_bytes() == whole[:limit]
    assert go_on(path) > 0
    assert path.read_bytes() == whole


def test_a_file_that_is_written_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIX}"
    writer = ResultsWriter(path, make_header())
    writer.write(make_lines()[:2])
    with path.open("ab") as other:
        other.write(b'{"kind":"item","task":')
    before = path.read_bytes()
    assert is_being_written(path)
    with pytest.raises(UserError, match=r"another process writes .*; stop it, or wait"):
        ResultsWriter.resume(path)
    assert path.read_bytes() == before
    writer.close()
    resumed, _ = ResultsWriter.resume(path)
    with pytest.raises(UserError, match="another process writes"):
        ResultsWriter.resume(path)
    resumed.close()
    assert not is_being_written(path)


def test_a_file_that_cannot_go_on_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*: No such file"):
        ResultsWriter.resume(tmp_path / "none")
    path = tmp_path / "a"
    for content in (
        b"text",
        b"",
        b'{"kind":"evaluation","version":1',
        b'{"kind":"x","version":1}\n',
    ):
        path.write_bytes(content)
        with pytest.raises(UserError):
            ResultsWriter.resume(path)
        assert path.read_bytes() == content
        assert not is_being_written(path)


# -- following ------------------------------------------------------------------------------------


def test_a_growing_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIX}"
    writer = ResultsWriter(path, make_header(kinds=["options"]))
    follower = ResultsFollower(path)
    results = follower.results
    assert (results.items, results.complete) == ({}, False)
    assert not follower.poll()
    items = [make_item("options", index) for index in range(6)]
    writer.write(items[:2])
    assert follower.poll()
    assert not follower.poll()
    assert results.items == {"options": items[:2]}
    writer.close()
    with path.open("ab", buffering=0) as other:
        line = msgspec.json.encode(items[2]) + b"\n"
        other.write(line[:100])
        assert not follower.poll()
        other.write(line[100:])
        assert follower.poll()
    assert results.items == {"options": items[:3]}
    writer, _ = ResultsWriter.resume(path)
    writer.write([*items[3:], make_end("options")])
    assert follower.poll()
    assert follower.results is results
    assert results == make_results(kinds=["options"])
    assert results.complete


def test_a_follower_says_what_became_of_its_file(tmp_path: Path) -> None:
    path = write_results(tmp_path)
    follower = ResultsFollower(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b"x\n")
    with pytest.raises(UserError, match=f"line {whole.count(10) + 1} of .* is damaged"):
        follower.poll()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="has become shorter; open it again"):
        follower.poll()
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        follower.poll()


# -- what is refused ------------------------------------------------------------------------------


def other(line: int, **changes: Any) -> bytes:
    """The whole file with changed fields in the record of a line, counted from 1."""
    records = [make_header(), *make_lines()]
    records[line - 1] = msgspec.structs.replace(records[line - 1], **changes)
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def without(line: int) -> bytes:
    records = [make_header(), *make_lines()]
    del records[line - 1]
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def twice(line: int) -> bytes:
    records = [make_header(), *make_lines()]
    records.insert(line, records[line - 1])
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


HEADER = make_header()
ITEM = make_item("options", 1)
NOT_FITTING = "its lists do not fit"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is no evaluation; `prunetui eval -o FILE.eval.jsonl` makes one"),
        (b"hello\n", "is no evaluation"),
        (b"\xff\xfe\x00", "is no evaluation"),
        (b"[" * 100_000, "is no evaluation"),
        (b'{"kind":"step","version":1}\n', "is not a whole evaluation: its first line"),
        (b'{"kind":"evaluation","version":1}\n', "the header of .* is damaged"),
        (msgspec.json.encode(HEADER), r"the header of .* is damaged \(it is cut short\)"),
        (other(1, version=2), "of version 2 and this prunetui reads up to version 1; install"),
        (other(1, lanes=[]), "it names 0 lanes"),
        (other(1, lanes=HEADER.lanes[:2]), "its fingerprints do not fit its lanes"),
        (other(1, lanes=HEADER.lanes * 100), "it names 300 lanes"),
        (other(1, tasks=HEADER.tasks + HEADER.tasks[:1]), "it names a task twice"),
        (other(3, task="other"), "line 3 .*its task is not in the header.*`head -n 2` of it"),
        (other(3, index=2), "line 3 .*it is item 2 where item 1 of 6 is due"),
        (twice(3), "line 4 .*it is item 1 where item 2 of 6 is due"),
        (without(3), "line 3 .*it is item 2 where item 1 of 6 is due"),
        (without(7), "line 7 .*it ends a task of 6 items after 5"),
        (twice(8), "line 9 .*its task has ended before"),
        (other(8, scores=[{}]), f"line 8 .*{NOT_FITTING}"),
        (other(3, answers=ITEM.answers[1:]), f"line 3 .*{NOT_FITTING}"),
        (other(3, drift=ITEM.drift[1:]), f"line 3 .*{NOT_FITTING}"),
        (other(3, options=ITEM.options[1:]), f"line 3 .*{NOT_FITTING}"),
        (other(3, gold_option=4), f"line 3 .*{NOT_FITTING}"),
        (other(3, contexts=[]), f"line 3 .*{NOT_FITTING}"),
        (twice(1), "line 2 .* is damaged"),
        (without(3).replace(b'"kind":"item"', b'"kind":"thing"', 1), "line 2 .* is damaged"),
    ],
)
def test_damage_is_said_in_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        read_results(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["logprobs", "greedy", "option"])
def test_every_answer_fits_the_options(tmp_path: Path, field: str) -> None:
    wrong: dict[str, Any] = {"logprobs": [1.0] * 3, "greedy": [True] * 5, "option": 4}
    answer = msgspec.structs.replace(ITEM.answers[2], **{field: wrong[field]})
    path = tmp_path / "a"
    path.write_bytes(other(3, answers=[*ITEM.answers[:2], answer]))
    with pytest.raises(UserError, match=f"line 3 .*{NOT_FITTING}"):
        read_results(path)


def test_a_score_fits_a_float(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for score, wrong in ((2**53, False), (10**400, True), (-(10**30), True), (True, False)):
        answer = msgspec.structs.replace(ITEM.answers[2], scores={"acc,none": score})
        path.write_bytes(other(3, answers=[*ITEM.answers[:2], answer]))
        if wrong:
            with pytest.raises(UserError, match=r"line 3 .*a score is too large"):
                read_results(path)
        else:
            assert read_results(path).items["options"][1].answers[2] == answer


def test_what_stands_before_damage_can_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(other(6, task="other"))
    with pytest.raises(UserError, match="`head -n 5` of it is an evaluation that can go on"):
        ResultsWriter.resume(path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    assert go_on(path) == 4
    assert read_results(path) == make_results()


def test_a_trace_and_an_evaluation_are_told_apart(tmp_path: Path) -> None:
    trace, evaluation = write_whole_trace(tmp_path), write_results(tmp_path)
    assert not is_evaluation(trace)
    assert not is_evaluation(tmp_path)
    assert not is_evaluation(tmp_path / "none")
    with pytest.raises(UserError, match="is a trace; `prunetui replay` opens it"):
        read_results(trace)
    with pytest.raises(UserError, match="is an evaluation; `prunetui show` opens it"):
        read_trace(evaluation)
