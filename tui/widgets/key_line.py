"""Line of keys at the bottom of a screen."""

from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import Binding
from textual.widget import Widget

from .panel import Line, Panel


@dataclass(frozen=True, kw_only=True)
class Key(Binding):
    """Binding with what the command palette, the help and the key line say of it."""

    noun: str
    """Thing that it is about, a word or three: the palette's entry leads with it."""
    keywords: str = ""
    """Words that the palette finds it by, besides those of `noun` and `tooltip`."""
    views: tuple[str, ...] = ()
    """Ids of the views, `overview` among them, where it comes first in the key line."""


class KeyLine(Panel):
    """Line of as many bindings as fit; a click on one runs its action.

    The last two, help and quit, are shown at every width: they lead to the rest.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"keys--key"}

    def __init__(self, bindings: list[Binding]) -> None:
        super().__init__()
        self._all_bindings = bindings
        self._bindings = [binding for binding in bindings if binding.show]
        self._ends: list[tuple[int, Binding]] = []
        """Column after each binding that is drawn."""

    def on_mount(self) -> None:
        # Below the messages, which take its place.
        self.screen.move_child(self, before=0)

    def show_view(self, name: str) -> None:
        """Begin the line with the keys that matter in a view."""
        first = [key for key in self._all_bindings if isinstance(key, Key) and name in key.views]
        others = [key for key in self._all_bindings if key.show and key not in first]
        self._bindings = [*first, *others]
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:  # noqa: ARG002
        line = Line().add(" ", self.rich_style)
        self._ends = []
        room = width - sum(self._cells(binding) for binding in self._bindings[-2:])
        for binding, following in zip(self._bindings, [*self._bindings[1:], None], strict=True):
            key = self.app.get_key_display(binding)
            if binding not in self._bindings[-2:] and line.width + self._cells(binding) > room:
                continue
            line.add(key, self.style("keys--key"))
            if following is None or following.description != binding.description:
                line.add(f" {binding.description}  ", self.style("panel--quiet"))
            elif cell_len(key) > 1:
                line.add("/", self.style("panel--quiet"))
            self._ends.append((line.width, binding))
        return [line]

    def _cells(self, binding: Binding) -> int:
        return cell_len(f"{self.app.get_key_display(binding)} {binding.description}  ")

    async def on_click(self, event: events.Click) -> None:
        for end, binding in self._ends:
            if event.x < end:
                await self.screen.run_action(binding.action)
                return


def key_for(widget: Widget, binding_id: str) -> str:
    """Display of the key of one of the screen's bindings."""
    bindings = [binding for binding in widget.screen.BINDINGS if isinstance(binding, Binding)]
    return next(widget.app.get_key_display(own) for own in bindings if own.id == binding_id)
