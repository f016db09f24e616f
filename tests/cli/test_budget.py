"""`prunetui budget` on the command line: its table, its files, and the sentences for mistakes."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.session.budget import Budget
from prunetui.engine.trace.analysis.budget import (
    Levels,
    Measured,
    NumberFigures,
    summarize_budget,
)
from prunetui.engine.trace.analysis.lane_figures import LaneFigures
from prunetui.tui.cli.budget_table import charts, kl_chart, steps_chart, table_lines
from prunetui.tui.cli.shutdown import ShutdownRequested

from ..support.command_line import complaint, prunetui
from ..support.models import save_model_directory


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_directory(tmp_path_factory.mktemp("models") / "tiny")


def made_up(budget: Budget) -> Iterator[list[Measured]]:
    """Figures of all numbers after each prompt, without decoding."""
    for prompt in range(2):
        yield [
            Measured(n, prompt, LaneFigures(n / 8, 4, 0, None if n < 2 else 3, False, None))
            for n in range(budget.most + 1)
        ]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("Bees make\n\nOne and one are\n")
    return file


def test_the_table_fits_80_columns_and_the_file_has_its_numbers(
    tiny: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out, traces = tmp_path / "a.csv", tmp_path / "traces"
    command = ["budget", "-m", tiny, "--max-new-tokens", 4, "--prompts", prompts, "--kl", "0.2"]
    command += ["--calibration-length", 16, "--calibration-samples", 1, "--ignore-eos"]
    assert prunetui(*command, "--max", 2, "-o", out, "--record-to", traces) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop() == f"prunetui replay {traces} opens the traces"
    assert max(map(len, lines)) <= 80
    assert lines[0] == "tiny: attention sublayers dropped, 2 prompts, at most 4 tokens each"
    _, *rows = csv.reader(out.open())
    assert [row[2] for row in rows] == ["0", "1", "2"]
    begin = next(n for n, line in enumerate(lines) if line.startswith("─")) + 1
    assert [line.split()[0] for line in lines[begin : begin + 3]] == ["0", "1", "2"]
    assert [float(line.split()[1]) for line in lines[begin : begin + 3]] == pytest.approx(
        [float(row[4]) for row in rows], rel=0.01
    )
    assert any(line.startswith("mean local KL(p‖q) under 0.2 nats: ") for line in lines)
    assert {path.name for path in traces.iterdir()} == {
        "attn-0-to-2.trace.jsonl",
        "attn-0-to-2-2.trace.jsonl",
    }


def test_what_came_before_the_end_is_printed_and_written(
    tiny: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    def interrupted(budget: Budget) -> Iterator[list[Measured]]:
        yield next(made_up(budget))
        raise ShutdownRequested

    def failing(budget: Budget) -> Iterator[list[Measured]]:
        yield next(made_up(budget))
        raise UserError("the disk is full")

    command = ["budget", "-m", tiny, "--kind", "mlp", "--prompts", prompts, "--max", 1]
    command += ["--calibration-length", 16, "--calibration-samples", 1]
    monkeypatch.setattr(Budget, "measure", interrupted)
    prunetui(*command, "-o", tmp_path / "a.json")
    said = " ".join(capsys.readouterr().out.split())
    assert "Note: Not complete: 2 of 4 texts are measured." in said
    assert "up to 1 dropped" in said
    written = json.loads((tmp_path / "a.json").read_text())
    assert [one["prompts"] for one in written["numbers"]] == [1, 1]
    assert written["notes"] == ["Not complete: 2 of 4 texts are measured."]
    monkeypatch.setattr(Budget, "measure", failing)
    said = complaint(capsys, *command, "-o", tmp_path / "b.json")
    assert said.endswith("prunetui: the disk is full")
    assert json.loads((tmp_path / "b.json").read_text())["numbers"] == written["numbers"]


def test_mistakes_are_one_sentence_before_a_model_is_loaded(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    full = tmp_path / "full"
    full.mkdir()
    (full / "a").touch()
    missing = tmp_path / "missing.txt"
    for arguments, sentence in [
        (["--prompts", empty], f"{empty} has no prompt; write one a line"),
        (["--prompts", missing], f"cannot read the file of prompts {missing}: No such file"),
        (["--prompts", prompts, "--prompt", "x"], "--prompts and --prompt both name prompts"),
        (["--by", "size"], "expected iterative, consecutive or by=kl"),
        (["--by", "kl,iterative,consecutive"], "asks for a run of attn"),
        (["--by", "kl+wanda:0.5"], "it takes kl or kl:FILE, and no other part of a recipe"),
        (["--kl", "0"], "--kl is 0.0; it must be above 0"),
        (["--kl", "nan"], "--kl is nan; it must be above 0"),
        (["-o", tmp_path / "a.txt"], "ends in none of .csv, .parquet and .json; name one"),
        (["--record-to", full], f"{full} has files already; name a new directory"),
        (["--record-to", empty], f"{empty} is no directory; name a new one"),
    ]:
        assert sentence in complaint(capsys, "budget", "-m", "no/model", *arguments)
    for arguments in (["--max", "0"], ["--kind", "heads"], ["--collapsed", "2"], ["-v", "x"]):
        assert prunetui("budget", *arguments) == 2


def numbers(*kls: float | None, first: int | None = 3, collapse: int | None = None) -> list:
    return summarize_budget(
        Measured(number, 0, LaneFigures(kl, 10, 0, first if number else None, False, collapse))
        for number, kl in enumerate(kls)
    )


def rows_of(lines: list, marker: str) -> dict[int, int]:
    """Row of the marker by its column; the title is no row."""
    return {
        column: row
        for row, line in enumerate(lines[1:])
        for column, cell in enumerate(line.plain)
        if cell == marker and column > 5
    }


def test_the_charts_place_values_and_levels() -> None:
    measured: list[NumberFigures] = numbers(1e-12, 0.1, 1.0, 0.001, first=5, collapse=20)
    lines = kl_chart(measured, 0.1, 80)
    assert {len(line.plain) for line in lines} == {80}
    places = rows_of(lines, "k")
    control, tenth, one, thousandth = (places[column] for column in sorted(places))
    assert one < tenth < thousandth == control
    assert lines[1 + control].plain.startswith("≤1e-3 ")
    assert {*rows_of(lines, "-").values()} == {tenth}
    steps = steps_chart(measured, 16, 40, 80)
    # The control never diverges, and has no point there.
    assert len(rows_of(steps, "d")) == 3
    assert len(rows_of(steps, "c")) == 4
    (first,), (collapse,) = ({*rows_of(steps, marker).values()} for marker in "dc")
    (level,) = {*rows_of(steps, "-").values()}
    assert collapse < level < first
    # Nothing above 0 has no logarithm; a single number is a chart all the same.
    assert len(charts(numbers(0.0, 0.0), Levels(), 40, 80)) == 1
    assert kl_chart(numbers(0.0), 0.1, 80) == []
    assert len(steps_chart(numbers(0.0, first=None), 16, 40, 60)[1].plain) == 60


def test_a_mean_that_leaves_steps_out_is_no_number_in_the_table() -> None:
    broken = summarize_budget([Measured(1, 0, LaneFigures(0.5, 7, 3, 2, True, None))])
    (row,) = table_lines(broken)[2:]
    assert row.split() == ["1", "not", "numbers", "≈", "2", "0/1", "0/1", "–"]
