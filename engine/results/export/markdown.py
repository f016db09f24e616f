"""An evaluation as Markdown, with tables ready to paste."""

from ...trace.export.markdown_blocks import code, code_or_dash, fenced, table
from ...trace.export.session_facts import LANE_COLUMNS, lane_cells
from ..comparison import TaskComparison, compare
from ..results import Results
from ..table import Section, legend, metric_label, notes, sections, title
from .facts import command, evaluation_facts
from .overview import OVERVIEW_NOTE, overview

NUMBERS = "---:"


def to_markdown(results: Results) -> str:
    """Markdown with the scores of all tasks in one table, and a table with drift for each task."""
    header = results.header
    comparisons = compare(results)
    facts = [[name, code(fact)] for name, fact in evaluation_facts(results).items()]
    lanes = [[code(lane.name), *map(code_or_dash, lane_cells(lane))] for lane in header.lanes]
    heads, rows = overview(comparisons)
    blocks = [
        f"# Tasks of {code(header.model.name)} and its variants",
        table(["", ""], facts),
        *(f"Note: {code(note)}" for note in header.notes),
        "## Lanes",
        table([*LANE_COLUMNS], lanes),
    ]
    if rows:
        scores = [[code(name), *cells] for name, *cells in rows]
        blocks += [
            "## Scores",
            table(["lane", *map(code, heads)], scores, NUMBERS),
            OVERVIEW_NOTE,
        ]
    for comparison in comparisons:
        blocks += _task(comparison)
    blocks += ["## Columns", "\n".join(f"- {clause}" for clause in legend(comparisons))]
    blocks += ["## Again", fenced(command(header))]
    return "\n\n".join(blocks) + "\n"


def _task(comparison: TaskComparison) -> list[str]:
    name, *parts = title(comparison)
    main, *others = _joined(sections(comparison))
    blocks = [f"## {code(name)}", ", ".join(map(code, parts)), _table(comparison, main)]
    for section in others:
        assert section.metric is not None
        blocks += [code(metric_label(section.metric)), _table(comparison, section)]
    return blocks + [f"Note: {code(note)}" for note in notes(comparison)]


def _joined(parts: list[Section]) -> list[Section]:
    """Sections, with drift beside the main metric."""
    if parts[0].metric is None:
        return parts
    main, drift, *others = parts
    return [Section(main.metric, [*main.columns, *drift.columns]), *others]


def _table(comparison: TaskComparison, section: Section) -> str:
    heads = ["lane", *(column.head for column in section.columns)]
    rows = [
        [code(cell.name), *(column.text(cell) for column in section.columns)]
        for cell in comparison.cells
    ]
    return table(heads, rows, NUMBERS)
