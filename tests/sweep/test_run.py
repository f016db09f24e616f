"""Jobs that run, fail, break off and are gone on with, over a fake evaluation."""

import os
from pathlib import Path

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.options import Options
from prunetui.engine.results.file import read_results
from prunetui.engine.results.records import Settings
from prunetui.engine.sweep import run
from prunetui.engine.sweep.folder import job_file, read_folder, remaining_jobs
from prunetui.engine.sweep.grid import grid_recipes
from prunetui.engine.sweep.jobs import Job, plan
from prunetui.engine.sweep.run import run_here
from prunetui.engine.sweep.worker import run_job

from . import fake_evaluation

ROOT = Path(__file__).parents[2]


class Recorder:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.stages: list[tuple[str, float | None]] = []
        self.errors: dict[str, str | None] = {}

    def begin(self, job: Job) -> None:
        self.begun.append(job.description)

    def progress(self, stage: str, fraction: float | None) -> None:
        self.stages.append((stage, fraction))

    def end(self, job: Job, error: str | None) -> None:
        self.errors[job.description] = error


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of a sweep, over the fake evaluation in processes of its own."""
    monkeypatch.setattr(run, "EVALUATE", f"{fake_evaluation.__name__}:evaluate")
    paths = [os.environ.get("PYTHONPATH", ""), str(ROOT)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    (tmp_path / "config.json").write_text("{}")
    folder = tmp_path / "sweep"
    folder.mkdir()
    return folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run jobs in this process, which is faster."""
    monkeypatch.setattr(run, "_run_process", run_job)


def jobs_of(directory: Path, *grids: str, tasks: tuple[str, ...] = ("boolq",)) -> list[Job]:
    options = Options(model=str(directory.parent))
    return plan(options, Settings(tasks=tasks), (0,), grid_recipes(grids))


def sweep(directory: Path, *grids: str, tasks: tuple[str, ...] = ("boolq",)) -> Recorder:
    recorder = Recorder()
    jobs, _ = remaining_jobs(jobs_of(directory, *grids, tasks=tasks), directory)
    run_here(jobs, directory, recorder)
    return recorder


def calls(directory: Path) -> list[str]:
    """Tasks and recipes of the jobs that a process was started for."""
    lines = (directory / "calls").read_text().splitlines()
    return [line.rpartition(" ")[0] for line in lines]


def test_a_failed_job_is_reported_and_the_rest_goes_on(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = ("boolq", "mistake", "killed", "memory", "wrong", "rte")
    recorder = sweep(directory, "drop:attn={1,2}", tasks=tasks)
    named = {task: recorder.errors[f"{task}: 2 recipes"] for task in tasks}
    assert named["boolq"] is None
    assert named["rte"] is None
    assert named["mistake"] == "there is no task mistake; near names: boolq"
    assert (named["killed"] or "").startswith("its process was killed, as the system does where")
    assert named["memory"] == "drop:attn=2 left out. variant drop:attn=2 is left out: out of memory"
    assert named["wrong"] == "something went wrong in prunetui itself; the log has the details"
    assert "ZeroDivisionError" in caplog.text
    assert ("boolq", 0.5) in recorder.stages
    assert ("loading", None) in recorder.stages
    folder = read_folder(directory)
    assert sorted(failure.error for failure in folder.failures.values()) == sorted(
        filter(None, named.values())
    )
    assert sum(results.complete for results in folder.evaluations.values()) == 3
    pids = {line.rpartition(" ")[2] for line in (directory / "calls").read_text().splitlines()}
    assert len(pids) == 6
    assert str(os.getpid()) not in pids


@pytest.mark.usefixtures("in_process")
def test_a_second_start_does_what_is_missing(directory: Path) -> None:
    tasks = ("boolq", "broken-off", "mistake")
    first = sweep(directory, "drop:attn={0..2}", tasks=tasks)
    assert [error is None for error in first.errors.values()] == [True, False, False]
    assert len(read_folder(directory).failures) == 2
    before = len(calls(directory))
    complete = job_file(directory, jobs_of(directory, "drop:attn={0..2}")[0])
    content = complete.read_bytes()

    second = sweep(directory, "drop:attn={0..2}", tasks=tasks)
    assert second.begun == ["broken-off: 3 recipes", "mistake: 3 recipes"]
    assert second.errors["broken-off: 3 recipes"] is None
    assert len(calls(directory)) == before + 2
    assert complete.read_bytes() == content
    # What went on after the kill is whole, and its failure is gone.
    resumed = jobs_of(directory, "drop:attn={0..2}", tasks=("broken-off",))
    results = read_results(job_file(directory, resumed[0]))
    assert results.complete
    assert len(results.items["broken-off"]) == fake_evaluation.ITEMS
    assert [failure.job for failure in read_folder(directory).failures.values()] == [
        "mistake: 3 recipes"
    ]
    jobs = jobs_of(directory, "drop:attn={0..2}", tasks=tasks)
    assert remaining_jobs(jobs, directory)[1] == 2


@pytest.mark.usefixtures("in_process")
def test_a_grid_that_has_grown_asks_for_the_new_recipes_alone(directory: Path) -> None:
    sweep(directory, "drop:attn={0..2}")
    sweep(directory, "drop:attn={0..4}", "drop:mlp=1")
    sweep(directory, "drop:attn={1..3}")
    assert calls(directory) == [
        "boolq control drop:attn=1 drop:attn=2",
        "boolq drop:attn=3 drop:attn=4 drop:mlp=1",
    ]


@pytest.mark.usefixtures("in_process")
def test_variants_that_memory_had_no_room_for_are_tried_again(directory: Path) -> None:
    sweep(directory, "drop:attn={1..3}", tasks=("memory",))
    recorder = sweep(directory, "drop:attn={1..3}", tasks=("memory",))
    assert recorder.begun == ["memory: drop:attn=2"]


@pytest.mark.usefixtures("in_process")
def test_a_broken_file_of_other_recipes_is_left_alone(directory: Path) -> None:
    sweep(directory, "drop:attn={1..4}", tasks=("broken-off",))
    sweep(directory, "drop:attn={1..2}", tasks=("broken-off",))
    assert calls(directory)[1:] == ["broken-off drop:attn=1 drop:attn=2"]


@pytest.mark.usefixtures("in_process")
def test_a_header_that_was_broken_off_is_written_again(directory: Path) -> None:
    (job,) = jobs_of(directory, "drop:attn=1")
    file = job_file(directory, job)
    file.write_bytes(b'{"kind":"evaluation","vers')
    assert sweep(directory, "drop:attn=1").errors == {"boolq: drop:attn=1": None}
    assert read_results(file).complete


@pytest.mark.usefixtures("in_process")
def test_a_damaged_file_is_kept_and_said(directory: Path) -> None:
    (job,) = jobs_of(directory, "drop:attn=1")
    file = job_file(directory, job)
    file.write_bytes(b"{}\n{}\n")
    error = sweep(directory, "drop:attn=1").errors["boolq: drop:attn=1"]
    assert error is not None
    assert "is no evaluation" in error
    assert file.read_bytes() == b"{}\n{}\n"


def test_an_interrupt_ends_the_process_of_the_job(directory: Path) -> None:
    class Interrupted(BaseException):
        pass

    class Impatient(Recorder):
        def progress(self, stage: str, fraction: float | None) -> None:
            if stage == "waits" and fraction:
                raise Interrupted

    jobs = jobs_of(directory, "drop:attn=1", tasks=("waits", "boolq"))
    with pytest.raises(Interrupted):
        run_here(jobs, directory, Impatient())
    (line,) = (directory / "calls").read_text().splitlines()
    with pytest.raises(ProcessLookupError):
        os.kill(int(line.rpartition(" ")[2]), 0)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the folder"):
        read_folder(tmp_path / "none")
