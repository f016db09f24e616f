"""Jobs of a sweep on this machine, one after another, each in a process of its own."""

import logging
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from ..progress import Progress
from .folder import Failure, failure_file
from .jobs import Job
from .worker import EVALUATE, Order

log = logging.getLogger(__name__)

MOST_LOGGED = 20_000
"""Bytes of what a worker wrote to stderr that are logged, the last ones."""


class Watcher(Protocol):
    """Front end of a sweep that runs."""

    def begin(self, job: Job) -> None: ...

    def progress(self, stage: str, fraction: float | None) -> None: ...

    def end(self, job: Job, error: str | None) -> None: ...


def run_here(jobs: Iterable[Job], directory: Path, watcher: Watcher) -> None:
    """Run jobs one after another. What fails costs its own job: only its end frees all memory of
    a process, and survives what ends it."""
    for job in jobs:
        watcher.begin(job)
        order = Order(job, str(directory), EVALUATE)
        end_job(job, directory, _run_process(order, watcher.progress), watcher)


def end_job(job: Job, directory: Path, error: str | None, watcher: Watcher) -> None:
    """Note in the folder that a job failed, or that it no longer does."""
    file = failure_file(directory, job)
    if error is None:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(msgspec.json.encode(Failure(job.description, error)) + b"\n")
    watcher.end(job, error)


def _run_process(order: Order, progress: Progress) -> str | None:
    """Run a job in a process of its own; return a sentence if it failed."""
    program = [sys.executable, "-P", "-m", "prunetui.engine.sweep.worker"]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # ctrl+c is for the parent alone.
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
            for line in process.stdout:
                match msgspec.json.decode(line):
                    case [stage, fraction]:
                        progress(stage, fraction)
                    case answer:
                        return answer
            code = process.wait()
        finally:
            process.kill()
        errors.seek(max(0, errors.seek(0, 2) - MOST_LOGGED))
        log.error(
            "%s ended with %s\n%s",
            order.job.description,
            code,
            errors.read().decode(errors="replace"),
        )
    return _sentence(code)


def _sentence(code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            "its process was killed, as the system does where memory runs out; a smaller "
            "--batch-size or fewer recipes need less"
        )
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}; the log has the details"
    return "something went wrong in prunetui itself; the log has the details"
