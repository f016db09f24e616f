"""List of the edited lanes: names, recipes, what each drops."""

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from .panel import Line, Panel, shorten
from .text_panel import SELECTED

NUMBER_CELLS = 6


@dataclass(frozen=True)
class LaneLine:
    name: str
    recipe: str
    note: str


class LaneList(Panel, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "pick(-1)", "lane above", show=False, id="lanes-up"),
        Binding("down", "pick(1)", "lane below", show=False, id="lanes-down"),
    ]

    COMPONENT_CLASSES: ClassVar[set[str]] = {"lanes--selected", "lanes--name"}

    class Picked(Message):
        def __init__(self, lane: int) -> None:
            super().__init__()
            self.lane = lane

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._lanes: list[LaneLine] = []
        self._lane = 0

    def show(self, lanes: list[LaneLine], lane: int) -> None:
        self._lanes, self._lane = lanes, lane
        self.redraw()

    def action_pick(self, by: int) -> None:
        self.post_message(self.Picked(min(max(self._lane + by, 0), len(self._lanes) - 1)))

    def on_click(self, event: events.Click) -> None:
        lane = self._first(self.size.height) + event.y - 1
        if event.y and lane < len(self._lanes):
            self.post_message(self.Picked(lane))

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    def _first(self, height: int) -> int:
        """Index of the first lane shown, with the selected one in the middle."""
        room = height - 1
        return min(max(self._lane - room // 2, 0), max(len(self._lanes) - room, 0))

    def draw(self, width: int, height: int) -> list[Line]:
        quiet = self.style("panel--quiet")
        lines = [self.title(width, "lanes", "applying decodes the prompt again")]
        first = self._first(height)
        note_cells = max((len(lane.note) for lane in self._lanes), default=0)
        name_cells = min(
            max((len(lane.name) for lane in self._lanes), default=0),
            (width - NUMBER_CELLS - note_cells - 2) // 2,
        )
        for number, lane in enumerate(self._lanes[first : first + height - 1], start=first):
            chosen = number == self._lane
            mark = SELECTED if chosen else " "
            style = self.style("lanes--selected" if chosen else "lanes--name")
            line = Line().add(f"{mark} {number}".ljust(NUMBER_CELLS), style)
            line.add(shorten(lane.name, name_cells).ljust(name_cells), style)
            recipe = "" if lane.recipe == lane.name else lane.recipe
            room = width - line.width - note_cells - 4
            line.add(f"  {shorten(recipe, room)}", quiet)
            line.pad_to(width - note_cells, quiet)
            lines.append(line.add(lane.note.rjust(note_cells), quiet))
        return lines
