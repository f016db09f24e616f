"""Merged table, charts and the printed report, on made-up evaluations."""

import csv
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from prunetui.engine.results.comparison import compare
from prunetui.engine.results.file import ResultsWriter
from prunetui.engine.results.records import SUFFIX
from prunetui.engine.results.results import Results
from prunetui.engine.sweep.axes import TITLES
from prunetui.engine.sweep.curves import find_curves
from prunetui.engine.sweep.export import to_csv, to_parquet
from prunetui.engine.sweep.folder import Failure, SweepFolder, read_folder
from prunetui.engine.sweep.html import to_html
from prunetui.engine.sweep.samples import find_studies
from prunetui.engine.sweep.table import COLUMNS, rows
from prunetui.engine.sweep.verdicts import sentences
from prunetui.tui.cli.sweep_charts import chart
from prunetui.tui.cli.sweep_report import show_sweep
from rich.cells import cell_len

from .made import evaluation, make_task

RECIPES = [f"drop:attn={number}" for number in range(1, 6)]


def made(seed: int = 0, recipes: list[str] = RECIPES) -> Results:
    """An evaluation in which each number costs more, and generation the most."""
    rng = np.random.default_rng(seed)
    draws = rng.random((2, 40))
    scores = [
        [[float(draw < 0.9 - cost * lane) for draw in own] for lane in range(len(recipes) + 1)]
        for own, cost in zip(draws, (0.02, 0.15), strict=True)
    ]
    tasks = [make_task("sums"), make_task("writing", "generation")]
    kl = {
        task.name: (
            rng.random((len(recipes), 40)) * 0.1 * 3 ** np.arange(len(recipes))[:, None]
        ).tolist()
        for task in tasks
    }
    return evaluation(recipes, [*zip(tasks, scores, strict=True)], kl=kl, seed=seed)


def write(path: Path, results: Results) -> None:
    writer = ResultsWriter(path, results.header)
    for task in results.header.tasks:
        writer.write(results.items[task.name])
        if end := results.ends.get(task.name):
            writer.write([end])
    writer.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    directory = tmp_path / "sweep"
    directory.mkdir()
    write(directory / f"a{SUFFIX}", made())
    write(
        directory / f"b{SUFFIX}", made(1, ["drop:mlp=2", "wanda:0.5+drop:attn=1", "magnitude:0.5"])
    )
    broken = made(2)
    del broken.ends["writing"]
    write(directory / f"c{SUFFIX}", broken)
    return directory


# -- the merged table -----------------------------------------------------------------------------


def test_the_merged_table_has_every_cell_of_every_complete_task(folder: Path) -> None:
    content = read_folder(folder)
    table = [dict(zip(COLUMNS, row, strict=True)) for row in rows(content)]
    expected = [
        (path.name, task.name, cell.name, score.value, score.delta, score.interval, cell.kl)
        for path, results in content.evaluations.items()
        for task in compare(results)
        if task.complete
        for cell in task.cells
        for score in cell.scores
    ]
    names = ("file", "task", "name", "score", "delta", "interval", "kl")
    got = [
        (
            *(row[name] for name in names[:5]),
            row["delta_low"] and (row["delta_low"], row["delta_high"]),
            row["kl"],
        )
        for row in table
    ]
    assert got == expected
    # The task of `c` that has not ended is not there.
    assert {(str(row["file"])[0], row["task"]) for row in table} == {
        *(("a", "sums"), ("a", "writing"), ("b", "sums"), ("b", "writing"), ("c", "sums")),
    }


def test_a_row_says_where_its_recipe_stands(folder: Path) -> None:
    table = [dict(zip(COLUMNS, row, strict=True)) for row in rows(read_folder(folder))]
    names = ("family", "number", "dropped", "calibration_seed")
    places = {(row["file"], row["name"]): tuple(row[name] for name in names) for row in table}
    assert places["a.eval.jsonl", "baseline"] == (None, None, 0, None)
    assert places["a.eval.jsonl", "drop:attn=4"] == ("drop:attn", 4, 4, 0)
    assert places["b.eval.jsonl", "drop:mlp=2"] == ("drop:mlp", 2, 2, 1)
    assert places["b.eval.jsonl", "magnitude:0.5"] == ("magnitude", 0.5, 0, None)
    assert places["b.eval.jsonl", "wanda:0.5+drop:attn=1"] == ("wanda+drop:attn=1", 0.5, 1, 1)


def test_csv_and_parquet_hold_the_table(folder: Path) -> None:
    content = read_folder(folder)
    table = [*rows(content)]
    lines = [*csv.reader(io.StringIO(to_csv(content)))]
    assert lines[0] == [*COLUMNS]
    assert len(lines) == len(table) + 1
    at = [*COLUMNS].index("delta")
    assert [line[at] for line in lines[1:]] == ["" if r[at] is None else str(r[at]) for r in table]
    parquet = pq.read_table(io.BytesIO(to_parquet(content)))
    assert parquet.column("delta").to_pylist() == [row[at] for row in table]
    assert parquet.column("family").to_pylist() == [
        row[[*COLUMNS].index("family")] for row in table
    ]
    headers = json.loads(parquet.schema.metadata[b"prunetui"])["files"]
    assert [*headers] == ["a.eval.jsonl", "b.eval.jsonl", "c.eval.jsonl"]


# -- charts in the terminal -----------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120, 41])
@pytest.mark.parametrize("measure", TITLES)
def test_charts_have_exactly_the_width(measure: str, width: int) -> None:
    (study,) = find_studies([made(seed) for seed in (0, 1)])
    lines = chart(find_curves(study), measure, width)
    assert {cell_len(line.plain) for line in lines} == {width}
    drawn = "\n".join(line.plain for line in lines[1:])
    # A letter a number, but where another one covers it.
    assert drawn.count("m") + drawn.count("g") >= len(RECIPES)


def test_a_chart_has_its_points_where_their_values_are() -> None:
    scores = [[1.0] * right + [0.0] * (20 - right) for right in (20, 20, 11)]
    recipes = ["drop:attn=1", "drop:attn=2"]
    (study,) = find_studies([evaluation(recipes, [(make_task("sums"), scores)])])
    lines = [line.plain for line in chart(find_curves(study), "score", 80)[1:]]
    marks = [
        (row, column)
        for row, line in enumerate(lines)
        for column in range(80)
        if line[column] == "m"
    ]
    ticks = {line[:6].strip(): row for row, line in enumerate(lines[:-1]) if line[:6].strip()}
    top = ticks["1.0"]
    assert sorted(marks, key=lambda mark: mark[1])[:2] == [(top, 6), (top, 43)]
    (low,) = [mark for mark in marks if mark[1] == 79]
    assert ticks["0.2"] == top + 12
    assert low[0] == top + round((1.0 - 0.55) / (1.0 - 0.2) * 12)
    assert lines[-1].split() == ["0", "1", "2"]


def test_without_points_there_is_no_chart() -> None:
    task = make_task("sums")
    same = [[1.0] * 5, [1.0] * 5]
    (study,) = find_studies([evaluation(["drop:attn=1"], [(task, same)], kl={"sums": [[0.0] * 5]})])
    assert chart(find_curves(study), "kl", 80) == []


# -- the page --------------------------------------------------------------------------------------


class Parser(HTMLParser):
    """Checks that every element is closed in order; collects texts and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(content: SweepFolder) -> Parser:
    parser = Parser()
    parser.feed(to_html(content))
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_has_sentences_curves_numbers_and_drop_lists(folder: Path) -> None:
    content = read_folder(folder)
    content.failures[Path("x")] = Failure("rte: <b>", "no \x1b[31mroom & none")
    page = parsed(content)
    words = " ".join(" ".join(page.texts).split())
    (study,) = find_studies(content.evaluations.values())
    for sentence in sentences(find_curves(study)):
        assert sentence in words
    assert "rte: <b>" in words
    assert "room & none" in words
    assert "\x1b" not in words
    assert "script" not in {tag for tag, _ in page.elements}
    # Families of several numbers or one, five measures each; a circle for every point.
    charts = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    curves = find_curves(study)
    families = {one.family for one in curves}
    assert len(charts) == 5 * len(families)
    circles = [attributes for tag, attributes in page.elements if tag == "circle"]
    assert len(circles) == sum(
        len(points) for one in curves for points in (one.score, *one.drift.values())
    )
    assert "0, 1, 2, 3, 4" in words


def test_a_curve_of_the_page_lies_where_its_values_are() -> None:
    scores = [[1.0] * right + [0.0] * (20 - right) for right in (20, 20, 11)]
    made = evaluation(["drop:attn=1", "drop:attn=2"], [(make_task("sums"), scores)])
    page = parsed(SweepFolder({Path("a"): made}))
    circles = [(attrs["cx"], attrs["cy"]) for tag, attrs in page.elements if tag == "circle"][:3]
    # 554 to the right of 52, 166 up from 192; the axis is from 0.2 to 1.
    assert circles == [
        ("52.0", "26.0"),
        ("329.0", "26.0"),
        ("606.0", f"{26 + 166 * 0.45 / 0.8:.1f}"),
    ]


def test_seeds_are_thin_lines_with_their_number() -> None:
    made = [
        evaluation(["drop:attn=1"], [(make_task("a"), [[1.0] * 5, own])], seed=seed)
        for seed, own in ((0, [1.0] * 5), (3, [1.0] * 4 + [0.0]))
    ]
    page = parsed(SweepFolder({Path(f"{n}"): results for n, results in enumerate(made)}))
    assert "calibration seed 3" in page.texts


# -- the report -----------------------------------------------------------------------------------


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[[Path], str]:
    monkeypatch.setenv("COLUMNS", "80")

    def show(directory: Path) -> str:
        show_sweep(directory)
        return capsys.readouterr().out

    return show


def test_the_report_says_and_draws(folder: Path, printed) -> None:
    (folder / "x.failed.json").write_text(
        '{"job": "rte: wanda:0.5", "error": "no \\u001b[31mroom"}'
    )
    (folder / "y.failed.json").write_text(
        '{"job": "boolq: wanda:0.5", "error": "no \\u001b[31mroom"}'
    )
    (folder / "z.failed.json").write_text("cut sho")
    text = printed(folder)
    assert all(cell_len(line) <= 80 for line in text.splitlines() if "Failed" not in line)
    words = " ".join(text.split())
    assert "drop:attn: multiple choice holds to" in words
    assert "A kind of task holds to the largest number" in words
    assert "drop:attn, by attention sublayers dropped; m multiple choice, g generation" in words
    assert "Failed: rte: wanda:0.5 and 1 more: no" in words
    assert "\x1b" not in text
    assert "Not complete, and not shown: c.eval.jsonl" in words


def test_an_empty_folder_says_so(tmp_path: Path, printed) -> None:
    assert "has no complete task" in printed(tmp_path)


def test_a_folder_of_nothing_but_a_baseline_is_no_error() -> None:
    content = SweepFolder({Path("a.eval.jsonl"): evaluation([], [(make_task("a"), [[1.0]])])})
    assert len([*rows(content)]) == 1
    (study,) = find_studies(content.evaluations.values())
    assert find_curves(study) == []
