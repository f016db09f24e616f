"""Title of a blame, and the line that leads through its pages."""

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.message import Message

from ...engine.trace.blame import Blame, Causes
from ...engine.trace.figures import nats
from .blame_table import quoted_token
from .panel import Line, Panel

PAGES: dict[Causes, str] = {
    "parts": "1 parts",
    "text": "2 in the text",
    "depth": "3 in depth",
}


@dataclass(frozen=True)
class TitleContent:
    lane: str
    step: int
    reading: str
    """Whose tokens all forms read, as a clause."""
    blame: Blame | None = None


class BlameTitle(Panel):
    """Lane and step that are blamed, the tokens that the two prefer, and KL of the lane."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "blame--value",
        "blame--returns",
        "blame--departs",
    }

    content: TitleContent | None = None

    def show(self, content: TitleContent) -> None:
        self.content = content
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:  # noqa: ARG002
        content = self.content
        if content is None:
            return []
        reading = content.reading
        lines = [
            self.title(
                width,
                f"step {content.step}: why {content.lane} leaves the baseline",
                reading,
                room_for=reading if width >= len(reading) + 40 else "",
            )
        ]
        blame, quiet = content.blame, self.style("panel--quiet")
        if blame is not None:
            value = self.style("blame--value")
            line = Line().add("KL(p‖q) ", quiet).add(nats(blame.pruned.kl), value)
            line.add("   baseline ", quiet)
            line.add(quoted_token(blame.baseline, 18), self.style("blame--returns"))
            line.add("   lane ", quiet)
            line.add(quoted_token(blame.pruned, 18), self.style("blame--departs"))
            lines.append(line)
        return lines


class BlamePages(Panel):
    """Names of the pages on a rule, the one that is shown first in bold; a click turns to one."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"blame--page", "blame--chosen"}

    class Picked(Message):
        def __init__(self, page: Causes) -> None:
            super().__init__()
            self.page: Causes = page

    def __init__(self) -> None:
        super().__init__()
        self._page: Causes = "parts"
        self._notes: tuple[str, ...] = ()
        self._ends: list[tuple[int, Causes]] = []
        """Column after each page's name."""

    def show(self, page: Causes, *notes: str) -> None:
        """Draw the line, with the longest of the notes that fits at its end."""
        self._page, self._notes = page, notes
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        for end, page in self._ends:
            if event.x < end:
                self.post_message(self.Picked(page))
                return

    def draw(self, width: int, height: int) -> list[Line]:  # noqa: ARG002
        line, self._ends = Line(), []
        for page, name in PAGES.items():
            chosen = page == self._page
            line.add(
                f"[{name}]" if chosen else f" {name} ",
                self.style("blame--chosen" if chosen else "panel--quiet"),
            )
            self._ends.append((line.width, page))
            line.add(" ", self.style("panel--rule"))
        note = next((n for n in self._notes if line.width + len(n) + 3 <= width), "")
        line.add("─" * (width - line.width - len(note) - bool(note)), self.style("panel--rule"))
        line.add(f" {note}" if note else "", self.style("panel--quiet"))
        return [line]
