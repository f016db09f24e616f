"""Folder of a sweep: a file per job, and a sentence per job that failed."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..errors import UserError, reason
from ..results.file import read_results
from ..results.records import SUFFIX
from ..results.results import Results
from ..trace.file import DAMAGE
from ..variants.recipes import Recipe, parse
from .jobs import Job, with_recipes

FAILURE_SUFFIX = ".failed.json"


class Failure(msgspec.Struct, frozen=True):
    """Job that failed, or a file that cannot be read."""

    job: str
    """Description of the job, or the name of the file."""
    error: str


@dataclass
class SweepFolder:
    """Contents of a folder in memory."""

    evaluations: dict[Path, Results] = field(default_factory=dict)
    failures: dict[Path, Failure] = field(default_factory=dict)


def read_folder(directory: Path) -> SweepFolder:
    """Read every evaluation and failure of a folder; what cannot be read is a failure too.

    Raises `UserError` if the folder cannot be listed.
    """
    folder = SweepFolder()
    try:
        files = sorted(directory.iterdir())
    except OSError as error:
        raise UserError(f"cannot read the folder {directory}: {reason(error)}") from error
    for path in files:
        if path.name.endswith(SUFFIX):
            try:
                folder.evaluations[path] = read_results(path)
            except UserError as error:
                folder.failures[path] = Failure(path.name, str(error))
        elif path.name.endswith(FAILURE_SUFFIX):
            # Written by hand, or by a machine that crashed: it says nothing.
            with contextlib.suppress(OSError, *DAMAGE):
                failure = msgspec.json.decode(path.read_bytes(), type=Failure)
                folder.failures[path] = failure
    return folder


def job_file(directory: Path, job: Job) -> Path:
    return directory / f"{job.key}{SUFFIX}"


def failure_file(directory: Path, job: Job) -> Path:
    return directory / f"{job.key}{FAILURE_SUFFIX}"


def remaining_jobs(jobs: Iterable[Job], directory: Path) -> tuple[list[Job], int]:
    """Jobs for what no file of the folder has yet, and the number of jobs that are complete.

    A file that was broken off and has none but recipes of the sweep is gone on with; a grid that
    has grown makes jobs for the new recipes alone. A file that ends in its header is deleted.
    """
    jobs = [*jobs]
    wanted: dict[str, dict[str, Recipe]] = {}
    for job in jobs:
        recipes = map(parse, job.options.variants or ())
        wanted.setdefault(job.base, {}).update((recipe.text, recipe) for recipe in recipes)
    for path in directory.glob(f"*{SUFFIX}"):
        if path.name.partition("-")[0] in wanted and b"\n" not in path.read_bytes():
            path.unlink()
    finished: dict[str, set[str]] = {base: set() for base in wanted}
    broken_off: dict[str, list[tuple[Path, list[str]]]] = {base: [] for base in wanted}
    for path, results in read_folder(directory).evaluations.items():
        base = path.name.partition("-")[0]
        recipes = [lane.recipe for lane in results.header.lanes if lane.recipe is not None]
        if base in wanted and results.complete:
            finished[base].update(recipes)
        elif base in wanted:
            broken_off[base].append((path, recipes))
    remaining: list[Job] = []
    covered = {base: {*recipes} for base, recipes in finished.items()}
    for job in jobs:
        own = wanted[job.base]
        for path, recipes in broken_off.pop(job.base, []):
            if own.keys() >= {*recipes} and not covered[job.base].intersection(recipes):
                covered[job.base].update(recipes)
                resumed = with_recipes(job, [own[recipe] for recipe in recipes])
                key = path.name.removesuffix(SUFFIX)
                remaining.append(msgspec.structs.replace(resumed, key=key))
        recipes = map(parse, job.options.variants or ())
        missing = [recipe for recipe in recipes if recipe.text not in covered[job.base]]
        if missing:
            remaining.append(with_recipes(job, missing))
    complete = sum(
        all(parse(text).text in finished[job.base] for text in job.options.variants or ())
        for job in jobs
    )
    return remaining, complete
