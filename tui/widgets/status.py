"""Status line at the top: the model, the sampling and the progress."""

from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from rich.cells import cell_len

from ...engine.trace.records import Header, Step
from ..moment import Moment
from .panel import Line, Panel, shorten

GAP = "  "
STOPS = "◉"
NOTES = "!"
RECENT = 16
"""Number of newest steps over which the pace is a median."""


@dataclass(frozen=True)
class Item:
    text: str
    style: str
    priority: int
    """Rank when not all items fit: those of higher priority are placed first."""


class StatusLine(Panel):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"status--model", "status--state", "status--alert"}

    moment: Moment | None = None
    state = ""
    sought = ""
    recording = ""
    alert = ""

    def show(self, moment: Moment, *, state: str, sought: str, recording: str, alert: str) -> None:
        """Draw the line; `sought` is what n and N seek, `alert` a sentence shown until the next
        command."""
        self.moment, self.state, self.sought = moment, state, sought
        self.recording, self.alert = recording, alert
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:  # noqa: ARG002
        if self.moment is None:
            return []
        header, steps = self.moment.header, self.moment.steps
        left = [
            Item(shorten(header.model.name, 32), "status--model", 9),
            *_notes(header),
            Item(f"{header.model.device}·{header.model.dtype}", "panel--quiet", 3),
            Item(f"{len(header.lanes)} lanes", "panel--quiet", 1),
            Item(header.context, "panel--quiet", 7),
            Item(self.moment.branch, "panel--quiet", 7),
            Item(_sampling(header), "panel--quiet", 6),
        ]
        right = [
            Item(f"{len(steps)}/{header.sampling.max_new_tokens} steps", "status--state", 10),
            Item(self.state, "status--state", 11),
            Item(self.sought, "status--state", 10),
            Item(_pace(steps), "panel--quiet", 8),
            Item(bandwidth_share(header, steps), "panel--quiet", 2),
            Item(_memory(steps), "panel--quiet", 4),
            Item(shorten(self.recording, 40), "panel--quiet", 5),
        ]
        if self.alert:
            right = [Item(shorten(self.alert, width - 24), "status--alert", 12), *right]
        fitting: list[Item] = []
        for item in sorted(left + right, key=lambda item: -item.priority):
            if _cells([*fitting, item]) <= width:
                fitting.append(item)
        left, right = ([item for item in side if item in fitting] for side in (left, right))
        line = Line()
        for item in left:
            line.add(item.text + GAP, self.style(item.style))
        line.pad_to(width - _cells(right) + len(GAP), self.rich_style)
        for item in right:
            if item.text:
                line.add(item.text, self.style(item.style))
                line.add(GAP if item is not right[-1] else "", self.rich_style)
        return [line]


def _cells(items: list[Item]) -> int:
    return sum(cell_len(item.text) + len(GAP) for item in items if item.text)


def _notes(header: Header) -> list[Item]:
    """Item with the number of notes, which the help lists."""
    count = len(header.notes)
    text = f"{NOTES} {count} note{'s' if count > 1 else ''}"
    return [Item(text, "status--alert", 10)] if count else []


def _sampling(header: Header) -> str:
    temperature = header.sampling.temperature
    return f"T {temperature:g}" if temperature else "greedy"


def _pace(steps: list[Step]) -> str:
    if not steps:
        return ""
    seconds = median(step.seconds for step in steps[-RECENT:])
    return f"{1 / seconds:.3g} tok/s" if seconds > 0 else ""


def bandwidth_share(header: Header, steps: list[Step]) -> str:
    """Share of a step's wall time that reading its weights and caches once would take at the
    bandwidth measured at load, as text: the median of the last steps."""
    shares = [
        step.read / header.bandwidth / step.seconds for step in steps[-RECENT:] if step.seconds > 0
    ]
    return f"{median(shares):.0%} bw" if shares else ""


def _memory(steps: list[Step]) -> str:
    return f"{steps[-1].memory / 1e9:.1f} GB" if steps else ""
