"""`prunetui eval` on the command line: its file, its table, and the sentences for mistakes."""

from pathlib import Path
from typing import Any

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.evaluation import evaluator
from prunetui.engine.results.file import ResultsWriter, read_results

from ..support.command_line import complaint, prunetui
from ..support.models import save_model_directory
from ..support.results import make_header, make_lines, make_results


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("Bees make\nOne and one are\n")
    return file


def test_tasks_are_evaluated_into_a_file_and_a_table(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, file = save_model_directory(tmp_path / "tiny"), tmp_path / "a.eval.jsonl"
    command = ("eval", "-m", model, "-v", "control", "-v", "drop:attn=[1]", "--max-new-tokens", 3)
    assert prunetui(*command, "--tasks", prompts, "-o", file) == 0
    printed = capsys.readouterr().out
    assert "prompts" in printed
    assert "drop:attn=[1]" in printed
    assert f"Recorded in {file}" in printed.replace("\n", "")
    results = read_results(file)
    assert results.complete
    assert [len(answer.tokens) for answer in results.items["prompts.txt"][0].answers] == [3, 3, 3]
    # What is complete has nothing left to do, and needs no model.
    content = file.read_bytes()
    (tmp_path / "tiny").rename(tmp_path / "elsewhere")
    assert prunetui("eval", "--resume", file) == 0
    assert "Nothing is left to evaluate" in (again := capsys.readouterr().out)
    assert again.startswith(printed[: printed.index("Recorded in")])
    assert file.read_bytes() == content
    # A part of it goes on only with the items of then.
    file.write_bytes(content[: content.index(b'{"kind":"end"')])
    (tmp_path / "elsewhere").rename(tmp_path / "tiny")
    prompts.write_text("Bees make\nOne and two are\n")
    assert "its items have changed" in complaint(capsys, "eval", "--resume", file)


def test_what_cannot_be_evaluated_is_one_sentence(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.eval.jsonl"
    writer = ResultsWriter(file, make_header())
    writer.write(make_lines())
    writer.close()
    content = file.read_bytes()
    for arguments, sentence in {
        ("-o", file): "exists already",
        ("--resume", file, "-o", tmp_path / "b"): "leave -o out",
        ("--resume", file, "--limit", 3): f"--resume asks as {file} says; leave --limit out",
        ("--resume", file, "--seed", 3): "leave --seed out",
        ("--resume", file, "--dtype", "bfloat16"): f"goes on as {file} says; leave --dtype out",
        ("--resume", file, "-v", "control"): "leave --variant out",
        ("--resume", tmp_path / "no.eval.jsonl"): "cannot read",
        ("--resume", prompts): "is no evaluation",
        ("--tasks", "a,,b"): "has an empty name",
        ("--tasks", "a,a"): "names 'a' twice",
    }.items():
        assert sentence in complaint(capsys, "eval", *arguments)
    assert file.read_bytes() == content


def test_what_ends_an_evaluation_leaves_its_table_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.eval.jsonl"

    def answer(*_: Any, report: Any, resume: bool) -> None:
        assert resume == file.exists()
        report(results := make_results(), 6.0)
        results.ends.clear()
        raise UserError("memory ran out; take it from here")

    monkeypatch.setattr(
        evaluator, "evaluate", lambda *args, resume: answer(report=args[-1], resume=resume)
    )
    assert prunetui("eval", "-o", file) == 2
    printed = capsys.readouterr()
    assert "drop:attn" in printed.out
    assert f"Not complete: prunetui eval --resume {file}" in printed.out.replace("\n", "")
    assert "prunetui: memory ran out; take it from here" in printed.err
