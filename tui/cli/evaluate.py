"""`prunetui eval`: evaluate tasks in all lanes, with a progress bar, and print the table."""

import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.text import Text

from ...engine.errors import UserError
from ...engine.options import Options
from ...engine.results.records import Settings
from ...engine.results.results import Results
from ...engine.trace.printable import visible
from .progress import loading_bar
from .results_table import print_results
from .shutdown import ShutdownRequested


def evaluate(options: Options, settings: Settings, file: Path, *, resume: bool) -> None:
    """Evaluate to the end or ctrl+c; print the bar to stderr, the table so far to stdout.

    Raises `UserError`, after printing the table, for what ended it sooner.
    """
    error: UserError | None = None
    with loading_bar() as (bar, report):
        # `prunetui --help` must not wait for torch.
        from ...engine.evaluation.evaluator import evaluate as answer

        shown = _Shown(bar)
        try:
            answer(options, settings, file, report, shown.update, resume=resume)
        except ShutdownRequested:
            # The table so far is printed; the exit code tells of the signal.
            pass
        except UserError as raised:
            error = raised
    if (results := shown.results) is not None:
        print_evaluation(results, file)
    if error is not None:
        raise error


def print_evaluation(results: Results, file: Path) -> None:
    """Print the table, and where it is recorded or how it goes on."""
    console = Console(soft_wrap=True)
    print_results(console, results)
    if results.complete:
        console.print(Text(f"Recorded in {visible(str(file))}"))
    else:
        console.print(Text(f"Not complete: prunetui eval --resume {visible(str(file))}"))


class _Shown:
    """What the bar shows: the task, items per second and the time left."""

    results: Results | None = None

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar
        self._began = (time.monotonic(), 0.0)
        """Time and items answered before."""

    def update(self, results: Results, answered: float) -> None:
        (task,) = self._bar.task_ids
        now = time.monotonic()
        if self.results is None:
            self.results, self._began = results, (now, answered)
            total = sum(of_header.items for of_header in results.header.tasks)
            self._bar.reset(task, total=total, completed=int(answered))
        seconds, items = now - self._began[0], answered - self._began[1]
        rate = f", {items / seconds:.2g} items/s" if items and seconds else ""
        names = [task.name for task in results.header.tasks if task.name not in results.ends]
        self._bar.update(
            task, description=visible(f"{names[0] if names else 'done'}{rate}"), completed=answered
        )
