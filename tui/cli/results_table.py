"""The table of an evaluation's results, in terminals of any width."""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ...engine.results.comparison import Cell, TaskComparison, compare, outer
from ...engine.results.results import Results
from ...engine.results.table import (
    MARK,
    NONE,
    Column,
    Section,
    legend,
    metric_label,
    notes,
    sections,
    title,
)
from ...engine.trace.figures import kl
from ...engine.trace.printable import visible

GAP = "  "


def print_results(console: Console, results: Results) -> None:
    """Print what was evaluated, a table per task or group, and what its columns are.

    Tasks for which a group stands are in its table only.
    """
    comparisons = outer(compare(results))
    for line in _facts(results):
        console.print(Text(line, style="dim"), soft_wrap=False)
    for comparison in comparisons:
        name, *facts = title(comparison)
        console.print()
        console.print(
            Text.assemble((name, "bold"), *(f" · {fact}" for fact in facts)), soft_wrap=False
        )
        if comparison.items:
            for line in table_lines(comparison, console.width):
                console.print(line, soft_wrap=True)
        for note in notes(comparison):
            console.print(Text(note, style="dim"), soft_wrap=False)
    console.print()
    console.print(_legend(comparisons), soft_wrap=False)


def _facts(results: Results) -> Iterator[str]:
    header = results.header
    facts = [
        visible(header.model.name),
        header.model.dtype,
        f"batch size {header.settings.batch_size}",
        f"noise floor {kl(header.noise_floor)} nats",
    ]
    if not results.complete:
        facts.append(f"{len(results.ends)} of {len(header.tasks)} tasks complete")
    yield " · ".join(facts)
    for note in header.notes:
        yield f"Note: {visible(note)}"


def _legend(comparisons: list[TaskComparison]) -> Text:
    text = Text(style="dim")
    for clause in legend(comparisons):
        head, _, meaning = clause.partition(": ")
        text.append(f"{'; ' * bool(text)}")
        text.append(head, style="not dim")
        text.append(f": {meaning}")
    return text + "."


def table_lines(comparison: TaskComparison, width: int) -> Iterator[Text]:
    """Rows of lanes, lines of at most `width` columns or of a name that is longer; nothing is cut.

    Columns that do not fit stand in further blocks, and so do the other metrics.
    """
    main: list[list[Column]] = []
    others: list[Section] = []
    for section in sections(comparison):
        if section.metric in (None, *comparison.metrics[:1]):
            main.append(section.columns)
        else:
            others.append(section)
    yield from _block_lines(comparison.cells, main, width)
    for section in others:
        if section.metric is not None:
            yield Text(metric_label(section.metric))
        yield from _block_lines(comparison.cells, [section.columns], width)


class _Drawn:
    """Column with the texts of all lanes, of equal width."""

    def __init__(self, column: Column, cells: list[Cell]) -> None:
        texts = [column.head, *(column.text(cell) for cell in cells)]
        if any(text.endswith(MARK) for text in texts):
            # Figures stand below each other, the mark behind them.
            texts = [text if text.endswith(MARK) else text + " " for text in texts]
        self.width = max(map(cell_len, texts))
        head, *figures = (text.rjust(self.width) for text in texts)
        self.head = Text(head, style="dim")
        self.figures = list(map(_styled, figures))


def _styled(text: str) -> Text:
    """Figure that the eye finds first if it is a score or marked; what is not defined is dim."""
    value, plus_minus, error = text.partition(" ± ")
    if plus_minus:
        return Text.assemble((value, "bold"), (plus_minus + error, "dim"))
    return Text(
        text, style="bold" if text.endswith(MARK) else "dim" if text.strip() == NONE else ""
    )


def _block_lines(cells: list[Cell], groups: list[list[Column]], width: int) -> Iterator[Text]:
    """Rows of lanes, in as many blocks of columns as the width asks for.

    Names that take more than a third of the width stand above their figures.
    """
    names = [visible(cell.name) for cell in cells]
    indent = max(map(cell_len, names))
    beside = indent <= width // 3
    if not beside:
        indent = 0
    for block in _fold(
        [[_Drawn(column, cells) for column in group] for group in groups], width - indent
    ):
        yield Text(GAP).join([Text(" " * indent), *(column.head for column in block)])
        for row, name in enumerate(names):
            if not beside:
                yield Text(name)
            first = name + " " * (indent - cell_len(name)) if beside else ""
            yield Text(GAP).join([Text(first), *(column.figures[row] for column in block)])


def _fold(groups: list[list[_Drawn]], width: int) -> list[list[_Drawn]]:
    """Blocks of columns that fit; a group is divided only if it does not fit a block of its own."""
    blocks: list[list[_Drawn]] = [[]]

    def fits(columns: Sequence[_Drawn]) -> bool:
        return sum(len(GAP) + column.width for column in columns) <= width

    for group in groups:
        parts = [group] if fits(group) else [[column] for column in group]
        if not fits([*blocks[-1], *parts[0]]) or len(parts) > 1:
            blocks.append([])
        for part in parts:
            if not fits([*blocks[-1], *part]):
                blocks.append([])
            blocks[-1] += part
    return [block for block in blocks if block]
