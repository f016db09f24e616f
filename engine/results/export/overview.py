"""Scores of all tasks in one table: a row per lane, a column per task or group."""

from ...trace import figures
from ..comparison import Score, TaskComparison
from ..table import MARK, NONE, metric_label

OVERVIEW_NOTE = (
    "Score by the main metric, and its difference from the baseline's on the same items "
    f"({MARK} p < .05, not corrected for the number of tests). A group stands for its tasks."
)


def overview(comparisons: list[TaskComparison]) -> tuple[list[str], list[list[str]]]:
    """Heads of the columns after the lane's name, and rows that begin with it.

    Tasks of a group are left out where the group is there, and tasks that have no metric.
    """
    shown = [task for task in outer(comparisons) if task.metrics]
    heads = [f"{task.name} {metric_label(task.metrics[0])}" for task in shown]
    if not shown:
        return [], []
    return heads, [
        [cell.name, *(_cell(task.cells[lane].scores[0]) for task in shown)]
        for lane, cell in enumerate(shown[0].cells)
    ]


def outer(comparisons: list[TaskComparison]) -> list[TaskComparison]:
    """Groups, and the tasks that belong to none of them."""
    grouped = {task.name for each in comparisons if each.group for task in each.tasks}
    return [each for each in comparisons if each.group or each.name not in grouped]


def _cell(score: Score) -> str:
    if score.value is None:
        return NONE
    value = figures.score(score.value)
    if score.delta is None:
        return value
    return f"{value} ({figures.score_difference(score.delta)}{MARK * score.significant})"
