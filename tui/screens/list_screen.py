"""Base of the screens with a list: a selected row that keys and mouse move, and a filter."""

from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Input, Label, Static

from ..widgets.fields import TextField
from ..widgets.row_list import RowList
from .dialog import UpperScreen
from .terminal_size import is_too_small, too_small_notice

MOVES: list[BindingType] = [
    Binding("up", "select(-1)", "up", show=False),
    Binding("down", "select(1)", "down", show=False),
    Binding("pageup", "page(-1)", "a page up", show=False),
    Binding("pagedown", "page(1)", "a page down", show=False),
    Binding("home", "select_end(-1)", "first", show=False),
    Binding("end", "select_end(1)", "last", show=False),
]

LEAVE = Binding("escape", "clear_or_leave", "back", key_display="esc")


class ListScreen(UpperScreen[None]):
    """Screen with a `RowList` and a filter above it."""

    AUTO_FOCUS = ""
    FILTER_HINT: ClassVar[str]
    """Words in the empty field of the filter."""

    def __init__(self) -> None:
        super().__init__()
        self.selected = 0

    def compose(self) -> ComposeResult:
        with Horizontal(id="filter"):
            yield Label("/ ")
            yield TextField(placeholder=self.FILTER_HINT)
        yield Static(id="too-small")

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(is_too_small(event.size), "too-small")
        self.query_one("#too-small", Static).update(too_small_notice(event.size))

    # -- for subclasses -----------------------------------------------------------------------

    @property
    def row_count(self) -> int:
        """Number of rows that are listed."""
        raise NotImplementedError

    def draw(self) -> None:
        """Draw the list, and what is known of the selected row."""
        raise NotImplementedError

    def list_rows(self) -> None:
        """List the rows that match the filter, with the same one selected."""
        raise NotImplementedError

    def open_row(self) -> None:
        """Open the selected row, which was clicked twice."""
        raise NotImplementedError

    def action_leave(self) -> None:
        raise NotImplementedError

    leaves_by_escape = True

    @property
    def filter_words(self) -> list[str]:
        """Words that a row is to have, in any case."""
        return self.query_one(TextField).raw_text.casefold().split()

    # -- moving -------------------------------------------------------------------------------

    def select(self, index: int) -> None:
        self.selected = max(0, min(index, self.row_count - 1))

    def action_select(self, by: int) -> None:
        self.select(self.selected + by)
        self.draw()

    def action_page(self, pages: int) -> None:
        self.action_select(pages * self.query_one(RowList).page)

    def action_select_end(self, side: int) -> None:
        self.action_select(side * self.row_count)

    @on(RowList.Picked)
    def _pick(self, event: RowList.Picked) -> None:
        self.select(event.index)
        self.draw()
        if event.again:
            self.open_row()

    def on_mouse_scroll_down(self) -> None:
        self.action_select(1)

    def on_mouse_scroll_up(self) -> None:
        self.action_select(-1)

    # -- the filter ---------------------------------------------------------------------------

    def action_filter(self) -> None:
        self.add_class("-filter")
        self.query_one(TextField).focus()

    @on(Input.Changed)
    def _filter(self) -> None:
        self.list_rows()

    @on(Input.Submitted)
    def _leave_filter(self) -> None:
        self.set_focus(None)
        self.set_class(self.query_one(TextField).value != "", "-filter")

    def action_clear_or_leave(self) -> None:
        if self.has_class("-filter"):
            self.query_one(TextField).value = ""
            self._leave_filter()
        elif self.leaves_by_escape:
            self.action_leave()
