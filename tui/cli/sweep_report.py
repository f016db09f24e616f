"""`prunetui show` of a sweep's folder: its sentences, its curves and what failed."""

import itertools
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ...engine.sweep.axes import TITLES
from ...engine.sweep.curves import find_curves
from ...engine.sweep.folder import SweepFolder, read_folder
from ...engine.sweep.samples import Study, find_studies
from ...engine.sweep.verdicts import RULE, sentences
from ...engine.trace.printable import visible
from .sweep_charts import chart, heading

MAX_WIDTH = 120


def show_sweep(directory: Path) -> None:
    """Print a sweep's sentences and charts. Raises `UserError` if the folder cannot be read."""
    folder = read_folder(directory)
    console = Console(soft_wrap=True)
    studies = find_studies(folder.evaluations.values())
    for study in studies:
        _print_study(console, study)
    if not any(study.samples for study in studies):
        console.print(Text(visible(f"{directory} has no complete task of a variant.")))
    print_failures(console, folder)


def _print_study(console: Console, study: Study) -> None:
    curves = find_curves(study)
    console.print(Text(visible(study.title), style="bold"))
    said = sentences(curves)
    for sentence in (*said, *study.notes):
        console.print(Text(visible(sentence)), soft_wrap=False)
    if said:
        console.print(Text(RULE, style="dim"), soft_wrap=False)
    width = min(console.width, MAX_WIDTH)
    for _, family in itertools.groupby(curves, lambda one: one.family):
        members = [*family]
        console.print()
        console.print(Text(visible(heading(members)), style="bold"), soft_wrap=False)
        for measure in TITLES:
            if lines := chart(members, measure, width):
                console.print("", *lines, sep="\n")
    console.print()


def print_failures(console: Console, folder: SweepFolder) -> None:
    """Print what failed, each sentence once."""
    jobs: dict[str, list[str]] = {}
    for failure in folder.failures.values():
        jobs.setdefault(failure.error, []).append(failure.job)
    for error, failed in jobs.items():
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        console.print(Text(visible(f"Failed: {failed[0]}{more}: {error}"), style="bold"))
    running = [path.name for path, results in folder.evaluations.items() if not results.complete]
    for name in running:
        console.print(Text(visible(f"Not complete, and not shown: {name}")))
