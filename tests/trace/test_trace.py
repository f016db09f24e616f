import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.output_files import check_writable
from prunetui.engine.trace.analysis.summary import mean, percentile, summarize
from prunetui.engine.trace.divergence import differs, first_divergence, is_tie
from prunetui.engine.trace.export.formats import to_csv, to_json
from prunetui.engine.trace.export.markdown import to_markdown
from prunetui.engine.trace.export.summary_table import summary_cells
from prunetui.engine.trace.file import TraceWriter, read_trace
from prunetui.engine.trace.printable import visible
from prunetui.engine.trace.records import Drift, Rewind, Step
from prunetui.engine.trace.trace import Trace

from ..support.steps import drift_of
from ..support.traces import HOSTILE, make_header, make_lens, make_step, make_trace


def write(path: Path, steps: int = 5) -> Path:
    writer = TraceWriter(path, make_header())
    for number in range(steps):
        writer.write(make_step(number))
    writer.close()
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "a.trace.jsonl"))
    assert trace.header == make_header()
    assert trace.steps == [make_step(number) for number in range(5)]


def test_an_entry_of_a_list_per_variant_is_found_by_its_lane() -> None:
    step = make_step(3)
    assert [step.drift_of(lane) for lane in range(3)] == [None, *step.drift]
    assert [step.layers_of(lane) for lane in range(3)] == [None, *step.layers]
    absent = (step.local_of, step.local_layers_of, step.local_answers_of)
    assert [find(lane) for find in absent for lane in range(3)] == [None] * 9
    both = msgspec.structs.replace(step, local=[None, step.drift[0]])
    assert [both.local_of(lane) for lane in range(3)] == [None, None, step.drift[0]]
    lens = make_lens(local=True)
    assert [lens.local_of(lane) for lane in range(3)] == [None, *(lens.local or [])]
    assert [make_lens().local_of(lane) for lane in range(3)] == [None] * 3


def test_every_line_is_in_the_file_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    writer = TraceWriter(path, make_header())
    assert len(read_trace(path).steps) == 0
    writer.write(make_step(0))
    assert len(read_trace(path).steps) == 1
    writer.close()


def test_a_rewind_takes_steps_back(tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    writer = TraceWriter(path, make_header())
    for event in [make_step(0), make_step(1), make_step(2), Rewind(to=1), make_step(1)]:
        writer.write(event)
    writer.close()
    assert read_trace(path).steps == [make_step(0), make_step(1)]


def test_a_cut_last_line_is_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.trace.jsonl", steps=3)
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    last = whole.rindex(b"\n", 0, -1) + 1
    for size in range(last, len(whole), 97):
        path.write_bytes(whole[:size])
        assert len(read_trace(path).steps) == 2
    path.write_bytes(whole[:header])
    assert read_trace(path).steps == []


def test_a_recording_that_stands_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "a.trace.jsonl")
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        TraceWriter(path, make_header())
    with pytest.raises(UserError, match="exists already"):
        check_writable(path)
    assert path.read_bytes() == before


def test_checking_leaves_no_file(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "a.trace.jsonl")
    assert [*(tmp_path / "new").iterdir()] == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        check_writable(tmp_path / "file" / "a.trace.jsonl")


def damaged(path: Path, number: int, line: bytes) -> Path:
    lines = path.read_bytes().split(b"\n")
    lines[number] = line
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        (0, b"hello", "is not a prunetui trace"),
        (0, b'{"a":1}', "is not a prunetui trace"),
        (0, b'{"kind":"step","version":1}', "its first line is no header"),
        (0, b'{"kind":"header","version":2}', "version 2 and this prunetui reads up to version 1"),
        (0, b'{"kind":"header","version":1}', "header of .* is damaged"),
        (2, b'{"kind":"step"', "line 3 of .* is damaged"),
        (2, b'{"kind":"song"}', "line 3 of .* is damaged"),
        (2, b"\xff\xfe", "line 3 of .* is damaged"),
        (2, msgspec.json.encode(make_step(4)), "step 4 cannot follow 1 steps"),
        (2, msgspec.json.encode(Rewind(to=9)), "cannot rewind 1 steps to 9"),
        (2, msgspec.json.encode(make_step(1, variants=1)), "do not fit the header's lanes"),
    ],
)
def test_damage_is_told_in_a_sentence(
    tmp_path: Path, number: int, line: bytes, message: str
) -> None:
    path = damaged(write(tmp_path / "a.trace.jsonl"), number, line)
    with pytest.raises(UserError, match=message):
        read_trace(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"\x00\x01\x02", b"PK\x03\x04\n\n"])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a prunetui trace"):
        read_trace(path)


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_trace(tmp_path / "none")
    with pytest.raises(UserError, match="Is a directory"):
        read_trace(tmp_path)


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    step = make_step(0)
    drift = msgspec.structs.replace(drift_of(step), kl=None)
    step = msgspec.structs.replace(step, drift=[drift, None])
    path = tmp_path / "a.trace.jsonl"
    writer = TraceWriter(path, make_header())
    writer.write(step)
    writer.close()
    assert read_trace(path).steps == [step]


def test_a_reader_that_took_the_steps_keeps_one_history() -> None:
    trace = make_trace(5)
    taken = trace.steps
    trace.rewind(2)
    trace.append(make_step(2))
    assert len(taken) == 5
    assert trace.steps is not taken
    assert [step.step for step in trace.steps] == [0, 1, 2]


def test_divergence() -> None:
    trace = make_trace(10)
    assert first_divergence(trace.steps, 1) == 4
    assert first_divergence(trace.steps, 2) == 8
    assert first_divergence(trace.steps[:4], 1) is None
    step = trace.steps[0]
    ended = msgspec.structs.replace(step, lanes=[step.lanes[0], None, None])
    assert differs(ended, 1)
    both = msgspec.structs.replace(step, lanes=[None, None, None])
    assert not differs(both, 1)


def test_a_divergence_under_the_noise_floor_is_a_tie() -> None:
    trace = make_trace(6)
    step = trace.steps[4]
    assert not is_tie(trace.header, step, 1)
    close = [msgspec.structs.replace(token, margin=9e-5) for token in step.lanes if token]
    tied = msgspec.structs.replace(step, lanes=close)
    assert is_tie(trace.header, tied, 1)
    at_the_floor = [msgspec.structs.replace(token, margin=1e-4) for token in close]
    assert trace.header.noise_floor == 1e-4
    assert not is_tie(trace.header, msgspec.structs.replace(step, lanes=at_the_floor), 1)
    trace.steps[4] = tied
    one, two = summarize(trace)
    assert (one.first_divergence, one.tie) == (4, True)
    assert (two.first_divergence, two.tie) == (None, False)
    assert summary_cells(one)[0] == "≈ 4"
    assert "| `drop:attn=1` | ≈ 4 |" in to_markdown(trace)


@pytest.mark.parametrize(("forced", "ties"), [(0, [False, False]), (1, [False, True])])
def test_a_token_that_is_forced_or_drawn_ties_with_none(forced: int, ties: list[bool]) -> None:
    trace = make_trace(6)
    close = [msgspec.structs.replace(t, margin=9e-5) for t in trace.steps[4].lanes if t]
    close[forced] = msgspec.structs.replace(close[forced], forced=True)
    step = msgspec.structs.replace(trace.steps[4], lanes=close)
    assert [is_tie(trace.header, step, lane) for lane in (1, 2)] == ties
    drawn = msgspec.structs.replace(trace.header.sampling, temperature=0.5)
    header = msgspec.structs.replace(trace.header, sampling=drawn)
    assert not is_tie(header, step, 2)


def test_torch_is_not_imported_to_read_a_trace(tmp_path: Path) -> None:
    path = write(tmp_path / "a.trace.jsonl")
    code = (
        "import sys; from pathlib import Path\n"
        "from prunetui.engine.trace.file import read_trace\n"
        "from prunetui.engine.trace.export.markdown import to_markdown\n"
        f"to_markdown(read_trace(Path({str(path)!r})))\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'textual'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- summary --------------------------------------------------------------------------------------


def test_mean_and_percentile() -> None:
    assert mean([1.0, 2.0, 6.0]) == 3
    assert mean([]) is None
    assert mean([1.0, None]) is None
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([4.0, 1.0, 3.0, 2.0], 99) == pytest.approx(3.97)
    assert percentile([7.0], 99) == 7
    assert percentile([None], 50) is None


def test_summary() -> None:
    trace = make_trace(20)
    one, two = summarize(trace)
    assert (one.name, one.first_divergence, one.divergent) == ("drop:attn=1", 4, 0.8)
    assert (two.name, two.first_divergence, two.divergent) == ("drop:mlp=1", 8, 0.6)
    kl = [d.kl for step in trace.steps if (d := step.drift[0]) and d.kl is not None]
    assert one.kl_mean == pytest.approx(sum(kl) / 20)
    assert one.kl_median == pytest.approx((sorted(kl)[9] + sorted(kl)[10]) / 2)


def test_a_summary_leaves_out_the_steps_after_an_end() -> None:
    trace = make_trace(6)
    last = trace.steps[-1]
    assert last.lanes[0] is not None
    ended = msgspec.structs.replace(
        make_step(6), lanes=[last.lanes[0], None, None], drift=[None, None], layers=[None, None]
    )
    trace.append(ended)
    one, _ = summarize(trace)
    kl = [d.kl for step in trace.steps[:6] if (d := step.drift[0]) and d.kl is not None]
    assert one.kl_mean == pytest.approx(sum(kl) / 6)
    assert one.divergent == pytest.approx(3 / 7)


def test_a_trace_without_steps_has_no_numbers() -> None:
    (only,) = summarize(Trace(make_header(variants=1)))
    assert (only.divergent, only.kl_mean, only.cos_h, only.first_divergence) == (None,) * 4


# -- exports --------------------------------------------------------------------------------------


def test_csv_has_a_row_per_step_and_lane_with_every_number() -> None:
    trace = make_trace(8)
    rows = [*csv.DictReader(io.StringIO(to_csv(trace)))]
    assert len(rows) == 8 * 3
    drift = trace.steps[7].drift[1]
    assert drift is not None
    row = rows[-1]
    assert (row["step"], row["lane"], json.loads(row["name"])) == ("7", "2", "drop:mlp=1")
    for key in Drift.__struct_fields__:
        assert float(row[key]) == float(getattr(drift, key))
        assert rows[-3][key] == ""


def test_no_csv_cell_is_a_formula() -> None:
    trace = make_trace(1)
    token = trace.steps[0].lanes[0]
    assert token is not None
    evil = msgspec.structs.replace(token, text="=1+1\n\x1b]0;x\x07")
    trace.steps[0] = msgspec.structs.replace(
        trace.steps[0], lanes=[evil, *trace.steps[0].lanes[1:]]
    )
    text = to_csv(trace)
    (row, *_) = csv.DictReader(io.StringIO(text))
    assert row["text"] == '"=1+1\\n\\u001b]0;x\\u0007"'
    assert "\x1b" not in text


def test_json_is_the_header_and_the_steps_that_stand() -> None:
    trace = make_trace(3)
    trace.rewind(2)
    whole = json.loads(to_json(trace))
    assert [step["step"] for step in whole["steps"]] == [0, 1]
    assert msgspec.convert(whole["steps"][1], Step) == trace.steps[1]


def test_markdown_keeps_hostile_text_in_its_fence() -> None:
    trace = make_trace(12)
    token = trace.steps[0].lanes[0]
    assert token is not None
    evil = msgspec.structs.replace(token, text="```\n# not a heading\x1b[31m")
    trace.steps[0] = msgspec.structs.replace(
        trace.steps[0], lanes=[evil, *trace.steps[0].lanes[1:]]
    )
    text = to_markdown(trace)
    assert "````text\n```\n# not a heading␛[31m" in text
    assert not set(text) & {chr(c) for c in (*range(9), *range(11, 32), 0x7F, 0x202E)}
    assert "| `drop:attn=1` | 4 | 66.7% |" in text


# -- visible --------------------------------------------------------------------------------------

CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x061C, *range(0x200B, 0x2010)]
CONTROLS += [*range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF, 0xE0001, 0xD800]


@pytest.mark.parametrize("code", CONTROLS)
def test_no_control_stays_hidden(code: int) -> None:
    shown = visible(f"a{chr(code)}b")
    assert chr(code) not in shown
    assert shown.startswith("a")
    assert shown.endswith("b")
    assert len(shown) > 2


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("plain [bold] text", "漢字", "é́", "naïve €", "\N{NO-BREAK SPACE}"):
        assert visible(text) == text
    assert visible("a\nb") == "a⏎b"
    assert visible("a\nb", keep="\n") == "a\nb"
    assert visible("".join(HOSTILE)).count("\x1b") == 0


# -- files that no session writes ------------------------------------------------------------------


@pytest.mark.parametrize("line", ["header", "step"])
def test_a_line_nested_a_million_deep_is_damage(line: str, tmp_path: Path) -> None:
    deep = b'{"kind":"%s","version":1,"a":' % line.encode() + b"[" * 10**6 + b"]" * 10**6 + b"}\n"
    path = tmp_path / "deep.trace.jsonl"
    path.write_bytes(
        deep if line == "header" else msgspec.json.encode(make_header()) + b"\n" + deep
    )
    with pytest.raises(UserError, match=r"damaged|not a prunetui trace"):
        read_trace(path)


def test_more_lanes_than_a_session_has_are_refused(tmp_path: Path) -> None:
    header = make_header()
    path = tmp_path / "wide.trace.jsonl"
    wide = msgspec.structs.replace(header, lanes=header.lanes * 10**5)
    path.write_bytes(msgspec.json.encode(wide) + b"\n")
    with pytest.raises(UserError, match="lanes"):
        read_trace(path)
