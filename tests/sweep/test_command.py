"""`prunetui sweep` as it is typed, over the fake evaluation."""

import sys
from pathlib import Path

import pytest
from prunetui.engine.sweep import run
from prunetui.engine.sweep.folder import read_folder
from prunetui.engine.sweep.worker import run_job

from ..support.command_line import complaint, prunetui
from . import fake_evaluation


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "EVALUATE", f"{fake_evaluation.__name__}:evaluate")
    monkeypatch.setattr(run, "_run_process", run_job)
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    return directory


def arguments(model: Path, *others: object) -> list[object]:
    return ["sweep", "-m", model, "-o", model.parent / "sweep", *others]


def test_a_sweep_runs_shows_and_is_not_run_again(model: Path, capsys) -> None:
    typed = arguments(model, "-v", "drop:attn={0..3}", "-v", "wanda:0.5", "--tasks", "rte,boolq")
    assert prunetui(*typed, "--calibration-seed", "0,5") == 0
    printed = capsys.readouterr()
    assert "drop:attn: multiple choice" in printed.out
    assert "1 of 8 jobs" not in printed.err
    folder = read_folder(model.parent / "sweep")
    lanes = {
        (results.header.options.calibration_seed, *(results.header.options.variants or ()))
        for results in folder.evaluations.values()
    }
    drops = ("drop:attn=1", "drop:attn=2", "drop:attn=3")
    assert lanes == {(0, "control", *drops), (5, *drops), (0, "wanda:0.5"), (5, "wanda:0.5")}
    assert len(folder.evaluations) == 8
    calls = (model.parent / "sweep" / "calls").read_text()
    assert prunetui(*typed, "--calibration-seed", "0,5") == 0
    assert "8 of 8 jobs are complete already" in capsys.readouterr().err
    assert (model.parent / "sweep" / "calls").read_text() == calls


def test_the_exit_code_says_that_a_job_failed(model: Path, capsys) -> None:
    typed = arguments(model, "-v", "drop:attn={1,2}", "--tasks", "mistake,boolq")
    assert prunetui(*typed) == 2
    printed = capsys.readouterr()
    assert "drop:attn: multiple choice" in printed.out
    assert "Failed: mistake: 2 recipes: there is no task mistake" in " ".join(printed.out.split())
    assert "1 of 2 jobs failed, as said above" in printed.err


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "a sweep needs recipes, as in -v 'drop:attn={0..12}'"),
        (["-v", "drop:attn={0..x}"], "grid 'drop:attn={▸0..x}' does not parse"),
        (["-v", "drop:attn=1", "--calibration-seed", "0,x"], "'0,x' is no list of whole numbers"),
        (["-v", "drop:attn=1", "--calibration-seed", "0,-1"], "'0,-1' is no list of whole numbers"),
        (["-v", "drop:attn=1", "ray://host"], "the address of a cluster needs --ray"),
        (["-v", "drop:attn=1", "-m", "none.gguf"], "there is no model at none.gguf"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(model, capsys, others, message) -> None:
    assert message in complaint(capsys, *arguments(model, *others))
    assert not (model.parent / "sweep").exists()


def test_a_folder_that_is_a_file_is_refused(model: Path, capsys) -> None:
    (model.parent / "sweep").write_text("")
    said = complaint(capsys, *arguments(model, "-v", "drop:attn=1", "--tasks", "boolq"))
    assert "cannot write to the folder" in said


def test_ray_that_is_not_installed_is_said(model: Path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    typed = arguments(model, "-v", "drop:attn=1", "--tasks", "boolq", "--ray")
    assert "--ray needs Ray, which is not installed: pip install 'prunetui[ray]'" in complaint(
        capsys, *typed
    )


def test_the_folder_is_shown_and_exported(model: Path, tmp_path: Path, capsys) -> None:
    assert prunetui(*arguments(model, "-v", "drop:attn={1,2}", "--tasks", "boolq")) == 0
    printed = capsys.readouterr().out
    folder = model.parent / "sweep"
    assert prunetui("show", folder) == 0
    assert printed == f"what libraries print is no answer\n{capsys.readouterr().out}"
    for name in ("a.csv", "a.parquet", "a.html"):
        assert prunetui("export", folder, "-o", tmp_path / name) == 0
        assert (tmp_path / name).stat().st_size > 0
    assert "'json' is no format of a sweep; --format takes csv, parquet, html" in complaint(
        capsys, "export", folder, "-o", tmp_path / "a.json"
    )
    assert "has no evaluation; `prunetui sweep -o" in complaint(
        capsys, "export", model, "-o", tmp_path / "b.csv"
    )
