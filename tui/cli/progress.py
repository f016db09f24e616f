"""Progress bar on stderr, for the commands without a screen."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from ...engine.out_of_memory import guard_memory_by_stage
from ...engine.progress import IMPORTING, Progress
from ...engine.trace.printable import visible


@contextmanager
def loading_bar() -> Iterator[tuple[progress.Progress, Progress]]:
    """Show a bar and yield it with a progress callback; begin with torch, slow to import."""
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

        def update(stage: str, fraction: float | None) -> None:
            bar.update(
                task,
                description=visible(stage),
                completed=(fraction or 0) * 100,
                total=None if fraction is None else 100,
            )

        with guard_memory_by_stage(update) as report:
            report(IMPORTING, None)
            yield bar, report
