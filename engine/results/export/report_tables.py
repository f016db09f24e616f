"""Tables of the HTML and Markdown reports, as cells of text; a row is a lane."""

from ...trace import figures
from ..comparison import TaskComparison, outer
from ..scores import Score
from ..table import MARK, NONE, Section, metric_label, sections

OVERVIEW_NOTE = (
    "Score by the main metric, and its difference from the baseline's on the same items "
    f"({MARK} p < .05, not corrected for the number of tests). A group stands for its tasks."
)


def overview(comparisons: list[TaskComparison]) -> tuple[list[str], list[list[str]]]:
    """Scores of all tasks in one table: heads after the lane's name, and rows that begin with it.

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


def tables(comparison: TaskComparison) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, heads and rows of each of a task's tables: the main metric's with drift, untitled,
    and one for each other metric."""
    main: list[Section] = []
    others: list[Section] = []
    for section in sections(comparison):
        shown = section.metric is None or section.metric is comparison.metrics[0]
        (main if shown else others).append(section)
    joined = Section(None, [column for section in main for column in section.columns])
    return [
        (
            metric_label(section.metric) if section.metric else "",
            ["lane", *(column.head for column in section.columns)],
            [
                [cell.name, *(column.text(cell) for column in section.columns)]
                for cell in comparison.cells
            ],
        )
        for section in [joined, *others]
    ]


def _cell(score: Score) -> str:
    if score.value is None:
        return NONE
    value = figures.score(score.value)
    if score.delta is None:
        return value
    return f"{value} ({figures.score_difference(score.delta)}{MARK * score.significant})"
