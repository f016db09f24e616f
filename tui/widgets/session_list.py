"""List of recorded sessions, and what is known of the one selected."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from rich.cells import cell_len
from rich.filesize import decimal

from ..user.recorded_sessions import RecordedSession, RecordedTrace
from .panel import Line, Panel, fill, shorten
from .row_list import RowList
from .text_panel import DIVERGES, SELECTED, TIES
from .wrapping import wrap

NARROW = 100
"""Width below which dates lack the year, and lanes are counted and not named."""

WIDE = 140
"""Width from which the lane that differs first is named."""

GAP = "  "
RECORDS = "●"
UNKNOWN = "…"
NONE = "–"

MARK_CELLS = 3
MODEL_CELLS = 32
LANE_CELLS = 20

LEAST_DESCRIPTION = 20
"""Cells that the columns of text share at least."""

SHOWN_CHARACTERS = 1000
"""Part of a prompt that is made visible: more than fits, and a prompt may have a million."""


@dataclass(frozen=True)
class SessionRow:
    """A session, or one of its several traces."""

    session: RecordedSession
    own_trace: RecordedTrace | None = None
    """The trace, if the row is that of one trace of a session that is unfolded."""

    @property
    def trace(self) -> RecordedTrace:
        return self.own_trace or self.session.shown

    @property
    def traces(self) -> tuple[RecordedTrace, ...]:
        return (self.own_trace,) if self.own_trace else self.session.traces

    @property
    def key(self) -> tuple[str, str]:
        return self.session.key, self.own_trace.name if self.own_trace else ""


class Column(IntEnum):
    DATE = 0
    FLAGS = 1
    MODEL = 2
    PROMPT = 3
    LANES = 4
    STEPS = 5
    FIRST = 6
    SIZE = 7


HEADS = ["date", "", "model", "prompt", "lanes", "steps", f"first {DIVERGES}", "size"]
DESCRIPTIONS = (Column.MODEL, Column.PROMPT, Column.LANES)
"""Columns of text, which share the room that figures leave."""

RIGHT = (Column.STEPS, Column.SIZE)
"""Columns of figures."""

DROPPED = (Column.LANES, Column.SIZE)
"""Columns left out first where there is no room."""


class SessionList(RowList):
    """Rows of sessions."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "sessions--selected",
        "sessions--row",
        "sessions--problem",
    }

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._title = self._note = ""
        self._rows: Sequence[SessionRow] = []
        self._empty = ""
        self._texts: list[list[str]] = []
        self._texts_of: tuple[Sequence[SessionRow], int] = ([], 0)
        """Rows and width that the texts are of: of hundreds they take longer than a frame."""

    def show(
        self, title: str, note: str, rows: Sequence[SessionRow], selected: int, empty: str
    ) -> None:
        """Draw the rows, or without any the sentence `empty`."""
        self._title, self._note = title, note
        self._rows, self.count, self.selected, self._empty = rows, len(rows), selected, empty
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        quiet = self.style("panel--quiet")
        lines = [self.title(width, self._title, self._note)]
        if not self._rows:
            return [*lines, Line(), *(Line().add(text, quiet) for text in wrap(self._empty, width))]
        if self._texts_of[0] is not self._rows or self._texts_of[1] != width:
            self._texts = [_texts(row, width) for row in self._rows]
            self._texts_of = (self._rows, width)
        texts = self._texts
        widths = _widths([HEADS, *texts], width)
        lines.append(Line().add(f"   {_joined(HEADS, widths)}", quiet))
        for index in self.rows_in_view(height):
            lines.append(self._line(index, texts[index], widths))
        return lines

    def _line(self, index: int, texts: list[str], widths: dict[Column, int]) -> Line:
        row, selected = self._rows[index], index == self.selected
        style = self.style("sessions--selected" if selected else "sessions--row")
        line = Line().add(f"{SELECTED if selected else ' '}{'└' if row.own_trace else ' '} ", style)
        problem = row.trace.problem
        if not problem:
            return line.add(_joined(texts, widths), style)
        # What is wrong takes the place of what cannot be told.
        edges = {
            column: widths[column]
            for column in (Column.DATE, Column.FLAGS, Column.SIZE)
            if column in widths
        }
        room = sum(widths.values()) + len(GAP) * (len(widths) - 1)
        room -= sum(edges.values()) + len(GAP) * len(edges)
        size = edges.pop(Column.SIZE, None)
        line.add(_joined(texts, edges) + GAP, style)
        sentence = problem.replace(str(row.trace.path), row.trace.path.name)
        line.add(fill(sentence, room), self.style("sessions--problem"))
        return line if size is None else line.add(GAP + _joined(texts, {Column.SIZE: size}), style)


def _texts(row: SessionRow, width: int) -> list[str]:
    """Texts of a row's columns, not yet cut to their widths."""
    trace, facts, outline = row.trace, row.trace.facts, row.trace.outline
    several = "" if row.own_trace or len(row.traces) == 1 else f"×{len(row.traces)}"
    recorded = RECORDS if any(own.being_written for own in row.traces) else ""
    size = sum(own.bytes + own.vector_bytes for own in row.traces)
    return [
        f"{trace.began:%m-%d %H:%M}" if width < NARROW else f"{trace.began:%Y-%m-%d %H:%M}",
        f"{recorded} {several}".strip(),
        facts.model if facts else "",
        facts.prompt[:SHOWN_CHARACTERS] if facts else "",
        _lanes(facts.lanes, width) if facts else "",
        str(outline.steps) if outline else UNKNOWN,
        _first(trace, width),
        decimal(size),
    ]


def _lanes(names: list[str], width: int) -> str:
    return f"{len(names):>5}" if width < NARROW else f"{len(names)}: {', '.join(names[1:])}"


def _first(trace: RecordedTrace, width: int) -> str:
    """First divergence, with its lane if there is room; lane names come from files."""
    if trace.outline is None or trace.facts is None:
        return UNKNOWN
    if (first := trace.outline.divergence) is None:
        return NONE
    lane = f" {shorten(trace.facts.lanes[first.lane], LANE_CELLS)}" if width >= WIDE else ""
    return f"{TIES if first.tie else DIVERGES} {first.step}{lane}"


def _widths(rows: Sequence[list[str]], width: int) -> dict[Column, int]:
    """Widths of the columns that there is room for; figures are never cut."""
    widest = {column: max(cell_len(row[column]) for row in rows) for column in Column}
    shown = [column for column in Column if widest[column] or column is Column.PROMPT]
    fluid = (Column.MODEL, Column.PROMPT) if width < NARROW else DESCRIPTIONS

    def room() -> int:
        figures = sum(widest[column] for column in shown if column not in fluid)
        return width - MARK_CELLS - figures - len(GAP) * (len(shown) - 1)

    for column in DROPPED:
        if room() < LEAST_DESCRIPTION:
            shown.remove(column)
    widest[Column.MODEL] = min(widest[Column.MODEL], MODEL_CELLS, room() * 2 // 5)
    rest = room() - widest[Column.MODEL]
    if Column.LANES in fluid and Column.LANES in shown:
        widest[Column.LANES] = min(widest[Column.LANES], rest // 2)
        rest -= widest[Column.LANES]
    widest[Column.PROMPT] = rest
    return {column: widest[column] for column in shown}


def _joined(texts: Sequence[str], widths: dict[Column, int]) -> str:
    """Texts cut or padded to the widths, in the order of the columns."""
    parts = []
    for column, cells in widths.items():
        text = texts[column]
        if column is Column.MODEL and cell_len(text) > cells:
            # Its owner, or the directory that it is in, says less.
            text = text.rpartition("/")[2]
        parts.append(text.rjust(cells) if column in RIGHT else fill(text, cells))
    return GAP.join(parts)


class SessionDetails(Panel):
    """Prompt, lanes, first divergence and files of a row."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"sessions--row", "sessions--problem"}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._row: SessionRow | None = None

    def show(self, row: SessionRow | None) -> None:
        self._row = row
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        if self._row is None:
            return []
        trace, quiet = self._row.trace, self.style("panel--quiet")
        files = _files(self._row)
        lines = [self.title(width, trace.name, ", ".join(files), ", ".join(files[1:]))]
        facts = trace.facts
        if trace.problem:
            texts = wrap(trace.problem, width)[: height - 1]
            return [*lines, *(Line().add(text, self.style("sessions--problem")) for text in texts)]
        if facts is None:
            return lines
        lines += [
            Line().add(shorten(f"{facts.model}  {', '.join(facts.lanes)}", width), quiet),
            Line().add(shorten(_progress(trace), width), quiet),
        ]
        style = self.style("sessions--row")
        prompt = wrap(facts.prompt[:SHOWN_CHARACTERS], width)[: height - len(lines)]
        return [*lines, *(Line().add(text, style) for text in prompt)]


def _files(row: SessionRow) -> list[str]:
    """Number and sizes of the files of a row."""
    count = len(row.traces)
    parts = [f"{count} traces, → shows them"] if count > 1 else []
    parts.append(decimal(sum(trace.bytes for trace in row.traces)))
    if vectors := sum(trace.vector_bytes for trace in row.traces):
        parts.append(f"{decimal(vectors)} of vectors")
    if any(trace.being_written for trace in row.traces):
        parts.append(f"{RECORDS} being recorded")
    return parts


def _progress(trace: RecordedTrace) -> str:
    """Steps, branch and first divergence of a trace in words."""
    outline, facts = trace.outline, trace.facts
    if outline is None or facts is None:
        return "its steps are being read …"
    steps = "1 step" if outline.steps == 1 else f"{outline.steps} steps"
    if outline.branches > 1:
        steps += f" in the last open of {outline.branches} branches"
    if (first := outline.divergence) is None:
        return f"{steps}; no lane differs from the baseline"
    mark = f"{TIES} a tie," if first.tie else DIVERGES
    return f"{steps}; {mark} first of all lanes at step {first.step}: {facts.lanes[first.lane]}"
