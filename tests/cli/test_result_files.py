"""`prunetui show` and `prunetui export` on evaluation files."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prunetui.engine.results.export.formats import REPORTS, ROW_FORMATS
from prunetui.engine.results.export.lm_eval_files import lm_eval_files
from prunetui.engine.results.file import ResultsWriter, read_results
from prunetui.engine.results.records import SUFFIX

from ..support.command_line import MAIN, complaint, prunetui
from ..support.html import Page
from ..support.results import make_header, make_lines, make_results, write_results
from ..support.traces import write_whole_trace


def test_show_prints_the_table_of_what_is_there(tmp_path: Path, capsys) -> None:
    path = tmp_path / f"a{SUFFIX}"
    writer = ResultsWriter(path, make_header())
    writer.write(make_lines()[:3])
    assert prunetui("show", path) == 0
    out = capsys.readouterr().out
    assert "3 of 6 items so far" in out
    assert "drop:attn=1" in out
    assert "KL(p ‖ q) in nats" in " ".join(out.split())
    writer.write(make_lines()[3:])
    assert prunetui("show", path) == 0
    assert "so far" not in capsys.readouterr().out


def test_show_needs_no_torch(tmp_path: Path) -> None:
    path = write_results(tmp_path)
    print_modules = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
    )
    done = subprocess.run(
        [sys.executable, "-c", print_modules + MAIN, "show", path],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "100"},
    )
    modules = {name.partition(".")[0] for name in done.stderr.split()}
    assert "prunetui" in modules
    assert not modules & {"torch", "transformers", "lm_eval", "datasets", "scipy", "textual"}
    assert "drop:mlp=1" in done.stdout


def test_each_format_opens_again(tmp_path: Path) -> None:
    path = write_results(tmp_path)
    for form in (*ROW_FORMATS, *REPORTS):
        assert prunetui("export", path, "-o", tmp_path / f"a.{form}") == 0
    rows = [*csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text("utf-8")))]
    assert len(rows) == pq.read_table(tmp_path / "a.parquet").num_rows == 4 * 6 * 3
    assert Page((tmp_path / "a.html").read_text("utf-8")).open == []
    results = read_results(path)
    assert (tmp_path / "a.md").read_text("utf-8") == REPORTS["md"](results)
    assert prunetui("export", path, "-o", tmp_path / "t.csv", "--rows", "table") == 0
    assert (tmp_path / "t.csv").read_text("utf-8") == ROW_FORMATS["csv"](results, "table")
    assert prunetui("export", path, "-o", tmp_path / "b", "--format", "parquet") == 0
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a.parquet").read_bytes()


def test_files_of_lm_eval_are_a_new_directory(tmp_path: Path, capsys) -> None:
    path, output = write_results(tmp_path), tmp_path / "new" / "files"
    assert prunetui("export", path, "--format", "lm-eval", "-o", output) == 0
    contents = dict(lm_eval_files(read_results(path)))
    written = [file for file in output.rglob("*") if file.is_file()]
    assert {str(file.relative_to(output)): file.read_text("utf-8") for file in written} == contents
    for file in written:
        for text in [file.read_text()] if file.suffix == ".json" else file.open():
            json.loads(text)
    before = sorted(output.parent.iterdir())
    said = complaint(capsys, "export", path, "--format", "lm-eval", "-o", output)
    assert "exists already; name another" in said
    retrieval = tmp_path / f"r{SUFFIX}"
    writer = ResultsWriter(retrieval, make_header(kinds=["retrieval"]))
    writer.close()
    other = output.with_name("other")
    assert "has none" in complaint(capsys, "export", retrieval, "--format", "lm-eval", "-o", other)
    assert sorted(output.parent.iterdir()) == before


def test_files_are_told_apart_by_their_first_line(tmp_path: Path, capsys) -> None:
    trace, evaluation = write_whole_trace(tmp_path), write_results(tmp_path)
    trace, evaluation = (
        trace.rename(tmp_path / "a.eval.jsonl"),
        evaluation.rename(tmp_path / "b.trace.jsonl"),
    )
    assert prunetui("export", trace, "-o", tmp_path / "a.json") == 0
    assert prunetui("export", evaluation, "-o", tmp_path / "b.md") == 0
    assert "its variants" in (tmp_path / "b.md").read_text("utf-8")
    assert "is a trace; `prunetui replay` opens it" in complaint(capsys, "show", trace)
    said = complaint(capsys, "replay", evaluation)
    assert "is an evaluation; `prunetui show` opens it" in said


def test_what_cannot_be_exported_is_said(tmp_path: Path, capsys) -> None:
    trace, evaluation = write_whole_trace(tmp_path), write_results(tmp_path)
    output = tmp_path / "a.json"
    said = complaint(capsys, "export", evaluation, "-o", output)
    assert said.endswith("of an evaluation; --format takes csv, parquet, md, html, lm-eval")
    said = complaint(capsys, "export", trace, "-o", tmp_path / "a.lm-eval")
    assert said.endswith("of a trace; --format takes csv, parquet, json, md, html, safetensors")
    said = complaint(capsys, "export", evaluation, "-o", tmp_path / "a.md", "--rows", "items")
    assert "--rows is for csv and parquet" in said
    said = complaint(capsys, "export", trace, "-o", tmp_path / "a.csv", "--rows", "items")
    assert "--rows of a trace takes steps or blames, not items" in said
    said = complaint(capsys, "export", evaluation, "-o", tmp_path / "a.csv", "--rows", "blames")
    assert "--rows of an evaluation takes items or table, not blames" in said
    evaluation.write_bytes(evaluation.read_bytes().replace(b'"index":1', b'"index":9', 1))
    said = complaint(capsys, "export", evaluation, "-o", tmp_path / "a.csv")
    assert "line 3 of" in said
    assert not (tmp_path / "a.csv").exists()


def test_a_folder_without_evaluations_is_no_sweep(tmp_path: Path, capsys) -> None:
    (tmp_path / "notes.txt").write_text("a")
    said = complaint(capsys, "show", tmp_path)
    assert said.endswith(f"{tmp_path} has no evaluations; `prunetui sweep -o DIR` makes some")


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/full"])
def test_an_export_goes_to_a_stream(path: str, tmp_path: Path, capfd) -> None:
    evaluation = write_results(tmp_path)
    code = prunetui("export", evaluation, "-o", path, "--format", "md")
    if path == "/dev/full":
        assert code == 2
        assert "No space left" in capfd.readouterr().err
    else:
        assert capfd.readouterr().out == REPORTS["md"](make_results())
