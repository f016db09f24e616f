"""Jobs as Ray tasks on two local workers, one of which is killed in the middle."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from prunetui.engine.sweep import ray_tasks
from prunetui.engine.sweep.folder import read_folder
from prunetui.engine.sweep.ray_tasks import RETRIES, check_ray, run_with_ray

from . import fake_evaluation
from .test_run import Recorder, directory, jobs_of

__all__ = ["directory"]


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_own_job_only(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray_tasks, "EVALUATE", f"{fake_evaluation.__name__}:evaluate")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    jobs = jobs_of(directory, "drop:attn={1,2}", tasks=("waits", "boolq", "mistake", "killed"))
    check_ray(jobs)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    recorder = Recorder()
    pids: list[int] = []

    def kill_the_one_that_waits() -> None:
        """Kill the worker that answers half of its items and then waits, once."""
        while not pids:
            time.sleep(0.1)
            for path, results in read_folder(directory).evaluations.items():
                if "waits" in results.items and len(results.items["waits"]) == 3:
                    lines = (directory / "calls").read_text().splitlines()
                    pids.extend(int(line.split()[-1]) for line in lines if "waits" in line)
                    os.kill(pids[0], signal.SIGKILL)
                    assert path.exists()
                    return

    killer = threading.Thread(target=kill_the_one_that_waits, daemon=True)
    killer.start()
    run_with_ray(jobs, directory, None, recorder)
    killer.join(10)
    assert not ray.is_initialized()
    errors = {name.partition(":")[0]: error for name, error in recorder.errors.items()}
    assert errors["waits"] is None
    assert errors["boolq"] is None
    assert errors["mistake"] == "there is no task mistake; near names: boolq"
    assert (errors["killed"] or "").startswith(f"its Ray worker died {RETRIES + 1} times")
    # The killed job went on with its file in another worker.
    lines = (directory / "calls").read_text().splitlines()
    waited = {line.split()[-1] for line in lines if line.startswith("waits")}
    assert len(waited) == 2
    assert str(os.getpid()) not in waited
    folder = read_folder(directory)
    complete = {next(iter(r.ends)) for r in folder.evaluations.values() if r.complete}
    assert complete == {"waits", "boolq"}
    assert len(folder.failures) == 2
