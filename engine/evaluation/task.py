"""What the evaluator asks of every kind of task."""

from collections.abc import Callable
from typing import Protocol

from ..results import records


class EvaluationTask(Protocol):
    """Items that are answered chunk by chunk, in all lanes.

    Chunks have the same bounds in every run, so that a run which goes on gives the same bits.
    """

    record: records.Task
    chunk: int
    """Items of a chunk at most."""

    def answer(self, first: int, last: int, report: Callable[[float], None]) -> list[records.Item]:
        """Answer the items `first` to `last` - 1 in all lanes; `report` gets the fraction done.

        Raises `UserError` for what the task got wrong, and where memory runs out.
        """
        ...

    def end(self, items: list[records.Item]) -> records.End:
        """Scores that are no means, from all items of the task."""
        ...
