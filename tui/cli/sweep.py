"""`prunetui sweep`: run what a folder lacks of a sweep, with a progress bar, and show it."""

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress as ProgressBar
from rich.text import Text

from ...engine.errors import UserError
from ...engine.sweep.folder import remaining_jobs
from ...engine.sweep.jobs import Job
from ...engine.sweep.run import run_here
from ...engine.trace.printable import visible
from .progress import loading_bar
from .shutdown import ShutdownRequested
from .sweep_report import show_sweep


def sweep(jobs: Sequence[Job], directory: Path, *, ray: bool, address: str | None) -> None:
    """Run jobs to the end or ctrl+c; print the bar to stderr, sentences and charts to stdout.

    Raises `UserError`, after printing them, if a job failed.
    """
    remaining, complete = remaining_jobs(jobs, directory)
    with loading_bar() as (bar, report):
        watcher = _Shown(bar, len(remaining), report)
        if complete:
            bar.console.print(f"{complete} of {len(jobs)} jobs are complete already")
        try:
            if ray:
                from ...engine.sweep.ray_tasks import check_ray, run_with_ray

                check_ray(remaining)
                run_with_ray(remaining, directory, address, watcher)
            else:
                run_here(remaining, directory, watcher)
        except ShutdownRequested:
            # What is complete is shown; the exit code tells of the signal.
            pass
    show_sweep(directory)
    if watcher.failed:
        raise UserError(
            f"{watcher.failed} of {len(remaining)} jobs failed, as said above; the same command "
            "tries them again"
        )


class _Shown:
    """What the bar shows: the job, how far it is, and how many are done."""

    def __init__(self, bar: ProgressBar, jobs: int, report) -> None:
        self._bar = bar
        self._jobs = jobs
        self._report = report
        self._ended = 0
        self._job = ""
        self.failed = 0

    def begin(self, job: Job) -> None:
        self._job = job.description
        self.progress("starting", None)

    def progress(self, stage: str, fraction: float | None) -> None:
        self._report(f"job {self._ended + 1} of {self._jobs}, {self._job}: {stage}", fraction)

    def end(self, job: Job, error: str | None) -> None:
        self._ended += 1
        if error is not None:
            self.failed += 1
            self._bar.console.print(Text(visible(f"{job.description} failed: {error}")))
        self._report(f"{self._ended} of {self._jobs} jobs ended", self._ended / self._jobs)
