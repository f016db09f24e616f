"""An evaluation as one HTML page without scripts, other files or a server."""

from collections.abc import Iterator

from ...trace import figures
from ...trace.export.html_page import escaped, page, table
from ...trace.export.session_facts import LANE_COLUMNS, lane_cells
from ..comparison import TaskComparison, compare, outer
from ..item_measures import flip, is_binary, kl_among_options
from ..records import Answer, Item, Task
from ..results import Results
from ..table import legend, notes, title
from .facts import command, evaluation_facts
from .html_chart import DRIFT_NOTE, SCORE_NOTE, drift_chart, drift_legend, score_chart
from .report_tables import OVERVIEW_NOTE, overview, tables

MOST_FLIPS = 5
"""Items that a lane lost, per task at most: those of the highest KL."""
MOST_CHARACTERS = 400

FLIP_COLUMNS = ("item", "question", "right", "baseline", "lane", "KL(p‖q)", "KL among options")


def to_html(results: Results) -> str:
    """HTML with the scores of all tasks, charts, tables, drop lists and items that flipped."""
    header = results.header
    name = f"Tasks of {header.model.name} and its variants"
    comparisons = compare(results)
    facts = [[escaped(key), escaped(fact)] for key, fact in evaluation_facts(results).items()]
    lanes = [[*map(escaped, [lane.name, *lane_cells(lane)])] for lane in header.lanes]
    heads, rows = overview(comparisons)
    body = [
        f"<h1>{escaped(name)}</h1>",
        table([], facts, "left"),
        *(f"<p><b>Note:</b> {escaped(note)}</p>" for note in header.notes),
        "<h2>Lanes</h2>",
        table(LANE_COLUMNS, lanes, "left"),
    ]
    if rows:
        scores = [[*map(escaped, row)] for row in rows]
        body += [
            "<h2>Scores</h2>",
            table(["lane", *map(escaped, heads)], scores, ""),
            f'<p class="note">{escaped(OVERVIEW_NOTE)}</p>',
        ]
    charted = [*map(id, outer(comparisons))]
    for comparison in comparisons:
        body += _task(results, comparison, charted=id(comparison) in charted)
    clauses = "".join(f"<li>{escaped(clause)}</li>" for clause in legend(comparisons))
    body += [f'<h2>Columns</h2><ul class="note">{clauses}</ul>']
    body += ["<h2>Again</h2>", f"<pre>{escaped(command(header))}</pre>"]
    return page(name, body)


def _task(results: Results, comparison: TaskComparison, *, charted: bool) -> Iterator[str]:
    name, *parts = map(escaped, title(comparison))
    yield f"<h2>{name}</h2><p>{', '.join(parts)}</p>"
    if charted:
        yield from _charts(comparison)
    for metric, heads, rows in tables(comparison):
        if metric:
            yield f"<h3>{escaped(metric)}</h3>"
        yield table([*map(escaped, heads)], [[*map(escaped, row)] for row in rows], "")
    yield from (f"<p><b>Note:</b> {escaped(note)}</p>" for note in notes(comparison))
    if not comparison.group:
        yield from _flips(results, comparison.tasks[0])


def _charts(comparison: TaskComparison) -> Iterator[str]:
    scores, drift = score_chart(comparison), drift_chart(comparison)
    if not scores and not drift:
        return
    yield '<div class="charts">'
    if scores:
        yield f'<figure>{scores}<p class="note">{SCORE_NOTE}</p></figure>'
    if drift:
        marks = "; ".join(
            f'<span class="{style}">●</span> {text}' for style, text in drift_legend(comparison)
        )
        yield f'<figure>{drift}<p class="note">{marks}. {DRIFT_NOTE}</p></figure>'
    yield "</div>"


def _flips(results: Results, task: Task) -> Iterator[str]:
    """Items that each variant lost, those of the highest KL first."""
    items = results.items.get(task.name, [])
    if not task.metrics or not is_binary(items, task.metrics[0]):
        return
    for lane, described in enumerate(results.header.lanes[1:], start=1):
        lost = [
            item
            for item in items
            if flip(item.answers[lane], item.answers[0], task.metrics[0]) == "lost"
        ]
        if not lost:
            continue
        lost.sort(key=lambda item: -(_kl(item, lane) or 0))
        rows = [_flip_cells(item, lane) for item in lost[:MOST_FLIPS]]
        of = f"{len(rows)} of {len(lost)}" if len(rows) < len(lost) else f"{len(lost)}"
        yield f"<details><summary>{escaped(described.name)} lost: {of}</summary>"
        yield table(FLIP_COLUMNS, [[*map(escaped, row)] for row in rows], "left")
        yield "</details>"


def _flip_cells(item: Item, lane: int) -> list[str]:
    """Cells in the order of `FLIP_COLUMNS`."""
    answer, baseline = item.answers[lane], item.answers[0]
    return [
        str(item.index),
        _short(item.question),
        _short(item.gold),
        _short(_answer(item, baseline)),
        _short(_answer(item, answer)),
        figures.kl(_kl(item, lane)),
        figures.kl(kl_among_options(answer, baseline)),
    ]


def _kl(item: Item, lane: int) -> float | None:
    drift = item.drift[lane - 1] if item.drift else None
    return drift.kl if drift else None


def _answer(item: Item, answer: Answer) -> str:
    if answer.option is not None:
        return item.options[answer.option].text
    return answer.text or ""


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
