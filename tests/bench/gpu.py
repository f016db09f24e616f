"""Speed and exactness of the lockstep on a GPU, in under eight minutes and without a network.

`make bench-gpu` runs it. Each shape and number of rows has a process of its own, so that its first
steps are those of a session that has just begun. Without a GPU it says so and exits with 2; with
one, with 0 if all targets are met and 1 if not.
"""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

# Nothing comes from a hub.
os.environ["HF_HUB_OFFLINE"] = "1"

import msgspec
import torch

from .gpu_report import Target, result_lines, targets
from .gpu_results import Generate, Result

BUDGET = 470
"""Seconds for everything.

On an H200 nine of the twelve jobs and the tests took 286 s. What comes too late is named as left
out: the shape of the targets is first, the largest last."""
TESTS = 75
"""Seconds of them that are left to the tests."""
LIMIT = 120
"""Seconds after which a process is given up."""
LEAST = 20
"""Seconds that must be left to begin another one."""
ROWS = (9, 1, 5, 17)


@dataclass(frozen=True)
class Job:
    """What one process measures: a shape's sessions of some rows, `generate`, or loading."""

    shape: str
    what: str
    """Number of rows, `generate` or `load`."""

    def __str__(self) -> str:
        return f"{self.shape}, {self.what}{' rows' if self.what.isdigit() else ''}"


class JobFailedError(Exception):
    """A process that gave no result, with the reason."""


def jobs() -> list[Job]:
    """All jobs, those of the targets first."""
    from .gpu_shapes import EIGHT, ONE, SEVEN

    whats = ("generate", *map(str, ROWS))
    return [
        *(Job(SEVEN.name, what) for what in whats),
        *(Job(ONE.name, what) for what in (*whats, "load")),
        *(Job(EIGHT.name, what) for what in whats),
    ]


def bench(
    todo: Sequence[Job],
    measure: Callable[[Job, float], Result],
    run_tests: Callable[[float], Target],
) -> int:
    """Measure the jobs in time, run the tests, print all; the exit status.

    `measure` gets a job and how many seconds it may take, `run_tests` the seconds that are left.
    The first job's shape is that of the targets on time.
    """
    began = time.monotonic()

    def left() -> float:
        return BUDGET - (time.monotonic() - began)

    results: dict[tuple[str, str], Result] = {}
    left_out: list[str] = []
    for job in todo:
        seconds = left() - TESTS
        if seconds < LEAST:
            left_out.append(f"{job}: no time was left")
            continue
        print(f"\n{job}", flush=True)
        try:
            result = measure(job, min(seconds, LIMIT))
        except JobFailedError as error:
            print(f"  failed: {error}", flush=True)
            left_out.append(f"{job}: {error}")
            continue
        results[job.shape, job.what] = result
        generate = results.get((job.shape, "generate"))
        for line in result_lines(result, generate if isinstance(generate, Generate) else None):
            print(f"  {line}", flush=True)
    print("\ntests marked gpu", flush=True)
    found = [*targets(results, todo[0].shape), run_tests(left())]
    print(f"\nmeasured in {BUDGET - left():.0f} s")
    for line in left_out:
        print(f"left out      {line}")
    for target in found:
        print(target.line)
    return 0 if all(target.met for target in found) else 1


def heading() -> str:
    """The card, its driver and the versions of what computes."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.check_output(query, text=True, timeout=20).splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        driver = "unknown"
    version = importlib.metadata.version
    return (
        f"{torch.cuda.get_device_name()}, driver {driver}, CUDA {torch.version.cuda}, "
        f"torch {torch.__version__}, transformers {version('transformers')}, "
        f"prunetui {version('prunetui')}"
    )


def measure_in_process(job: Job, seconds: float) -> Result:
    """Measure a job in a fresh process. Raises `JobFailedError` if it gives no result in time."""
    command = [sys.executable, "-m", "tests.bench.gpu", "--one", job.shape, job.what]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        try:
            status = subprocess.run(command, stdout=output, stderr=errors, timeout=seconds)
            failure = f"exit status {status.returncode}"
        except subprocess.TimeoutExpired:
            failure = f"not done after {seconds:.0f} s"
        output.seek(0)
        errors.seek(0)
        # What was measured before a failure counts.
        if results := [line for line in output if line.startswith("{") and line.endswith("\n")]:
            return msgspec.json.decode(results[-1], type=Result)
        said = errors.read().strip().splitlines()
    raise JobFailedError(f"{failure}: {said[-1]}" if said else failure)


def measure_here(job: Job) -> Iterator[Result]:
    """Measure a job in this process, which should be fresh; the last result is the whole one."""
    from .gpu_measures import measure_generate, measure_loading, measure_rows
    from .gpu_shapes import SHAPES

    shape = SHAPES[job.shape]
    if job.what == "generate":
        yield from measure_generate(shape)
    else:
        yield measure_loading(shape) if job.what == "load" else measure_rows(shape, int(job.what))


def run_gpu_tests(seconds: float) -> Target:
    """Run the engine's tests marked `gpu` and print what they say."""
    what = "the engine's tests marked gpu pass"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-rs", "tests/gpu"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        return Target(what, None, f"not done after {seconds:.0f} s")
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-500:]]
    for line in lines[-40:]:
        print(f"  {line}")
    # Where all are skipped, pytest ends with 0 too.
    return Target(what, done.returncode == 0 and "passed" in lines[-1], lines[-1].strip("= "))


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark, or with `--one SHAPE JOB` one job of it, in lines of JSON."""
    if arguments[:1] == ["--one"]:
        for result in measure_here(Job(*arguments[1:])):
            print(msgspec.json.encode(result).decode(), flush=True)
        return 0
    if not torch.cuda.is_available():
        print(
            "make bench-gpu needs an NVIDIA GPU that torch can use; there is none", file=sys.stderr
        )
        return 2
    print(heading())
    return bench(jobs(), measure_in_process, run_gpu_tests)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
