"""The lanes as they are to be: names, recipes, what each drops."""

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
        """The lane of the first line below the title: the selected one is in the middle."""
        room = height - 1
        return min(max(self._lane - room // 2, 0), max(len(self._lanes) - room, 0))

    def draw(self, width: int, height: int) -> list[Line]:
        quiet = self.style("panel--quiet")
        lines = [self.title(width, "lanes", "applying decodes the prompt again")]
        first = self._first(height)
        notes = max((len(lane.note) for lane in self._lanes), default=0)
        names = min(
            max((len(lane.name) for lane in self._lanes), default=0),
            (width - NUMBER_CELLS - notes - 2) // 2,
        )
        for number, lane in enumerate(self._lanes[first : first + height - 1], start=first):
            chosen = number == self._lane
            mark = SELECTED if chosen else " "
            name = self.style("lanes--selected" if chosen else "lanes--name")
            line = Line().add(f"{mark} {number}".ljust(NUMBER_CELLS), name)
            line.add(shorten(lane.name, names).ljust(names), name)
            recipe = "" if lane.recipe == lane.name else lane.recipe
            room = width - line.width - notes - 4
            line.add(f"  {shorten(recipe, room)}", quiet)
            lines.append(line.pad_to(width - notes, quiet).add(lane.note.rjust(notes), quiet))
        return lines
