"""A job in the process that it has for itself.

As a program: reads the job as a line of JSON from standard input, and ends with its parent, when
that is closed; writes lines of JSON, `[stage, fraction]` while it works, and at the end `null` or
the sentence of a mistake.
"""

import importlib
import os
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..errors import UserError
from ..out_of_memory import guard_memory_by_stage
from ..progress import Progress
from ..results.file import read_results
from ..results.results import Results
from ..variants.recipes import parse
from .folder import job_file
from .jobs import Job

EVALUATE = "prunetui.engine.evaluation.evaluator:evaluate"
"""Module and name of the function that evaluates."""


class Order(msgspec.Struct, frozen=True):
    """What a worker is told."""

    job: Job
    directory: str
    evaluate: str


def run_job(order: Order, progress: Progress) -> str | None:
    """Evaluate a job into its file, or go on with it; return a sentence if that failed."""
    file = job_file(Path(order.directory), order.job)
    module, _, name = order.evaluate.partition(":")
    try:
        with guard_memory_by_stage(progress) as report:
            evaluate = getattr(importlib.import_module(module), name)
            evaluate(
                *(order.job.options, order.job.settings, file, report, _Answering(report)),
                resume=file.exists(),
            )
        header = read_results(file).header
    except UserError as error:
        return str(error)
    there = {lane.recipe for lane in header.lanes}
    recipes = map(parse, order.job.options.variants or ())
    left_out = [recipe.text for recipe in recipes if recipe.text not in there]
    return " ".join([f"{', '.join(left_out)} left out.", *header.notes]) if left_out else None


class _Answering:
    """Progress in items, as a fraction of all."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, results: Results, answered: float) -> None:
        self._progress("answering", answered / sum(task.items for task in results.header.tasks))


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        # Libraries print.
        os.dup2(2, 1)

        def progress(stage: str, fraction: float | None) -> None:
            _send(answers, [stage, fraction])

        _send(answers, run_job(order, progress))


def _send(answers: BinaryIO, content: object) -> None:
    answers.write(msgspec.json.encode(content) + b"\n")


def _end_with_parent() -> None:
    # Not through `sys.stdin`, whose lock the interpreter wants as it ends.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
