"""Blames in CSV, Parquet, Markdown and HTML: every number, and text that stays text."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from prunetui.engine.trace.analysis.blame_sentences import sentences
from prunetui.engine.trace.blame import Blame, NextToken
from prunetui.engine.trace.export.blame_table import COLUMNS
from prunetui.engine.trace.export.formats import to_csv, to_json, to_parquet
from prunetui.engine.trace.export.html import to_html
from prunetui.engine.trace.export.html_blame_chart import depth_chart, part_chart
from prunetui.engine.trace.export.markdown import to_markdown
from prunetui.engine.trace.file import TraceWriter
from prunetui.engine.trace.records import Blamed, Step
from prunetui.engine.trace.trace import Trace

from ..support.blames import OUTSIDE, attention, blame_of, make_blame, mlp, next_token, part_blame
from ..support.command_line import complaint, prunetui
from ..support.html import Page
from ..support.traces import make_header, make_step, make_trace

BLAME = make_blame()
assert BLAME.in_depth is not None
# As in a family whose attention and MLP run in parallel.
PARALLEL = msgspec.structs.replace(
    BLAME.in_depth, last=[*BLAME.in_depth.last[:3], None, *BLAME.in_depth.last[4:]]
)
BLAME = msgspec.structs.replace(BLAME, in_depth=PARALLEL)
SMALL = msgspec.structs.replace(BLAME, lane=2, tokens="lane", in_text=None, in_depth=None)


@pytest.fixture
def trace() -> Trace:
    """A trace of which step 2 has two blames, and a step that was taken back one too."""
    made = make_trace(5)
    made.add_blame(2, BLAME)
    made.add_blame(2, SMALL)
    made.add_blame(4, BLAME)
    made.rewind(4)
    return made


def expected_rows(blame: Blame, name: str) -> list[dict[str, object]]:
    """Rows of a blame of step 2, by column, of what is there."""

    def row(form: str, of: NextToken, **cells: object) -> dict[str, object]:
        numbers = {"kl": of.kl, "gap": of.gap, "token": of.token, "text": of.text}
        return {"form": form, **cells, **numbers, "not_numbers": of.not_numbers}

    found = [row("baseline", blame.baseline), row("pruned", blame.pruned)]
    for part in blame.parts:
        named = {"sublayer": part.part.sublayer, "layer": part.part.layer}
        found += [row("given_back", part.given_back, **named), row("alone", part.alone, **named)]
    found.append(
        row("cumulative", blame.cumulative.after[0], sublayer="attention", layer=1, count=1)
    )
    if blame.in_text:
        found += [row("caches", one.next, position=one.position) for one in blame.in_text.tried]
    if blame.in_depth:
        for key, points in (("last", blame.in_depth.last), ("every", blame.in_depth.every)):
            found += [row(key, form, point=at) for at, form in enumerate(points) if form]
    whole = {"step": 2, "lane": blame.lane, "name": name, "tokens": blame.tokens}
    whole |= {"floor": 1e-9, "forms": 4, "seconds": 0.5}
    whole["latest"] = blame.in_text.latest if blame.in_text else None
    return [dict.fromkeys(COLUMNS) | whole | one for one in found]


def test_csv_and_parquet_have_every_number_of_the_blames_that_stand(trace: Trace) -> None:
    rows = expected_rows(BLAME, "drop:attn=1") + expected_rows(SMALL, "drop:mlp=1")
    assert len(rows) == (2 + 6 + 1 + 3 + 13) + (2 + 6 + 1)
    table = pq.read_table(io.BytesIO(to_parquet(trace, "blames")))
    assert table.to_pylist() == rows
    read = csv.DictReader(io.StringIO(to_csv(trace, "blames")))
    parsed = [{key: json.loads(cell or "null") for key, cell in row.items()} for row in read]
    assert parsed == [row | {"not_numbers": int(row["not_numbers"] is True)} for row in rows]
    empty = pq.read_table(io.BytesIO(to_parquet(make_trace(1), "blames")))
    assert empty.schema == table.schema


def test_json_has_the_blames_with_their_step(trace: Trace) -> None:
    step = msgspec.convert(json.loads(to_json(trace))["steps"][2], Step)
    assert step.blames == [BLAME, SMALL]


def test_markdown_has_the_sentences_and_the_numbers(trace: Trace) -> None:
    text = to_markdown(trace)
    assert text.count("\n### ") == 2
    assert "### `drop:attn=1 at step 2, on the baseline's tokens`" in text
    assert "### `drop:mlp=1 at step 2, on its own tokens`" in text
    for sentence in sentences(BLAME, 2):
        assert f"\n- `{sentence}`\n" in text
    # The most important part first; of the parts' numbers, those that are compared.
    first = "| `attention 1` | `0.250` | `+3.25` | `+3.00` | `“ clips” ✓` | `3.00` | `-2.00` | "
    assert f"{first}`“ friends”` |\n| `what is outside of the layers` | `3.25` |" in text
    hostile = "“␛]0;x␇</td>¦`[b]<U+202E>”"
    assert f"| `MLP 1` | `4.00` | `-0.500` | `-0.500` | `` {hostile} `` | `0.500` |" in text
    assert "| `nothing` | `3.50` | `“ friends”` |\n| `attention 1` | `0.250` |" in text
    assert "| `2` | `2.00` | `“ friends”` |" in text
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "to blame" not in to_markdown(make_trace(5))


def test_html_has_the_sentences_the_numbers_and_charts(trace: Trace) -> None:
    written = to_html(trace)
    page = Page(written)
    assert page.open == []
    # Two variants in four measures; two charts of bars, and one of depth.
    assert page.tags.count("svg") == 8 + 3
    assert not {"b]", "script"} & set(page.tags)
    assert not {"style", "onload"} & set(page.attributes)
    for sentence in sentences(BLAME, 2):
        assert sentence in page.text
    assert "“␛]0;x␇</td>|`[b]<U+202E>”" in page.text
    assert "<td>not numbers</td>" in written
    row = ["attention 1", "0.250", "+3.25", "+3.00", "“ clips” ✓", "3.00", "-2.00", "“ friends”"]
    assert "".join(f"<td>{cell}</td>" for cell in row) in written
    assert "to blame" not in to_html(make_trace(5))


def numbers(pattern: str, svg: str) -> list[float]:
    return [float(text) for text in re.findall(pattern, svg)]


def test_bars_are_as_long_as_what_is_given_back_on_one_scale() -> None:
    svg = part_chart(BLAME, 3)
    assert Page(svg).open == []
    kinds = re.findall(r'<rect class="(\w+)"', svg)
    assert kinds == ["back", "stays"]
    up, down = numbers(r'height="([\d.]+)">', svg)
    # +3.25 and -0.5 nats of 86 pixels for 3.75 nats; attention stands on its zero line.
    assert up == pytest.approx(86 * 3.25 / 3.75, abs=0.06)
    assert down == pytest.approx(86 * 0.5 / 3.75, abs=0.06)
    tops = numbers(r'<rect class="\w+" x="[\d.]+" y="([\d.]+)"', svg)
    zeros = numbers(r'class="axis" d="M52,([\d.]+)H', svg)
    assert tops[0] + up == pytest.approx(zeros[0], abs=0.11)
    assert tops[1] == pytest.approx(zeros[1], abs=0.11)
    # Layer 1 of 3.
    lefts = numbers(r'<rect class="\w+" x="([\d.]+)"', svg)
    assert lefts == [pytest.approx(52 + 558 * 1.15 / 3, abs=0.06)] * 2
    assert re.findall(r'text-anchor="end">([^<]*)<', svg)[:3] == ["0", "-0.500", "+3.25"]
    assert "<title>attention 1: +3.25 nats</title>" in svg
    assert ">outside of the layers: +0.250<" in svg
    assert "KL(p‖q) given back in nats, p baseline, q variant" in svg


@pytest.mark.parametrize("kl", [None, 0.0, 1.7e308])
def test_charts_of_any_numbers_have_finite_places(kl: float | None) -> None:
    parts = [
        part_blame(part, next_token(value, 3), next_token(value, 3))
        for part, value in ((attention(0), kl), (mlp(2), -1.7e308 if kl else kl), (OUTSIDE, kl))
    ]
    for svg in (
        part_chart(blame_of(next_token(kl, 2), parts), 3),
        part_chart(blame_of(next_token(1.0, 2), parts), 100),
    ):
        assert not re.search(r'="[^"]*(nan|inf)', svg)
    # No float is their difference.
    assert ("n/a" in part_chart(blame_of(next_token(kl, 2), parts), 3)) == (kl != 0)


def test_lines_are_kl_by_the_point_where_the_stream_is_put_in() -> None:
    svg = depth_chart(PARALLEL)
    every, last = re.findall(r'<path class="line \w+" d="([^"]*)"', svg)
    # Every: not finite before attention 0, then 0.5 at six points.
    assert len(re.findall(r"[ML]", every)) == 6
    assert every.startswith(f"M{52 + 558 / 6:.1f},")
    # Last: a line past point 3, which is not there.
    xs = [52 + 558 * point / 6 for point in (0, 1, 2, 4, 5, 6)]
    assert numbers(r"[ML]([\d.]+)", last) == [pytest.approx(x, abs=0.06) for x in xs]
    assert last.count("M") == 1
    # 0 is drawn at the lower end of the scale.
    assert last.endswith("L610.0,154.0")
    assert ">≤ 0.1<" in svg
    assert ">sublayers before it<" in svg


def write(path: Path, *blames: Blame) -> Path:
    writer = TraceWriter(path, make_header())
    for number in range(3):
        writer.write(make_step(number))
    for blame in blames:
        writer.write(Blamed(step=2, blame=blame))
    writer.close()
    return path


def test_the_command_line_exports_blames_or_says_why_not(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "a.trace.jsonl", BLAME)
    for form in ("csv", "parquet"):
        output = tmp_path / f"a.{form}"
        assert prunetui("export", path, "-o", output, "--rows", "blames") == 0
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + 25
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 25
    assert prunetui("export", path, "-o", tmp_path / "steps.csv", "--rows", "steps") == 0
    assert len((tmp_path / "steps.csv").read_text().splitlines()) == 1 + 9
    output = tmp_path / "b.csv"
    none = write(tmp_path / "none.trace.jsonl")
    said = complaint(capsys, "export", none, "-o", output, "--rows", "blames")
    assert f"no step of {none} was blamed; `prunetui blame {none}` does it" in said
    said = complaint(capsys, "export", path, "-o", output, "--rows", "table")
    assert "--rows of a trace takes steps or blames, not table" in said
    said = complaint(capsys, "export", path, "-o", tmp_path / "b.md", "--rows", "blames")
    assert "--rows is for csv and parquet" in said
    (folder := tmp_path / "sweep").mkdir()
    said = complaint(capsys, "export", folder, "-o", output, "--rows", "blames")
    assert "--rows is for traces and evaluations; leave it out for a sweep" in said
    assert not output.exists()


def test_torch_is_not_imported_to_export_a_blame(tmp_path: Path) -> None:
    path = write(tmp_path / "a.trace.jsonl", BLAME)
    code = (
        "import sys; from pathlib import Path\n"
        "from prunetui.engine.trace.export.formats import FORMATS, to_csv\n"
        "from prunetui.engine.trace.file import read_trace\n"
        f"trace = read_trace(Path({str(path)!r}))\n"
        "assert len(to_csv(trace, 'blames').splitlines()) == 26\n"
        "assert all('to blame' in FORMATS[form](trace) for form in ('md', 'html'))\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'textual'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
