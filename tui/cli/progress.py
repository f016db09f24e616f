"""Progress on stderr, for the commands without a screen."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from ...engine.out_of_memory import guard_memory_by_stage
from ...engine.progress import IMPORTING, Progress
from ...engine.trace.printable import visible


@contextmanager
def loading() -> Iterator[tuple[progress.Progress, Progress]]:
    """A bar that says what is being loaded; torch takes seconds to import, so that is first."""
    bar = progress.Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(IMPORTING, total=None)

        def report(doing: str, done: float | None) -> None:
            bar.update(
                task,
                description=visible(doing),
                completed=(done or 0) * 100,
                total=None if done is None else 100,
            )

        with guard_memory_by_stage(report) as told:
            told(IMPORTING, None)
            yield bar, told
