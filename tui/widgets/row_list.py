"""Base of the lists that draw only the rows in view, with one of them selected."""

from textual import events
from textual.message import Message

from .panel import Panel

HEADS = 2
"""Lines above the rows: a title and the names of the columns."""


class RowList(Panel):
    """Rows below a title and column names; the selected row is kept in view."""

    class Picked(Message):
        """Click on a row; `again` if it was selected before."""

        def __init__(self, index: int, *, again: bool) -> None:
            super().__init__()
            self.index = index
            self.again = again

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.count = 0
        """Number of rows."""
        self.selected = 0

    @property
    def page(self) -> int:
        """Number of rows on the screen."""
        return max(self.size.height - HEADS, 1)

    def on_click(self, event: events.Click) -> None:
        rows = self.rows_in_view(self.size.height)
        index = rows.start + event.y - HEADS
        if event.y >= HEADS and index in rows:
            self.post_message(self.Picked(index, again=index == self.selected))

    def rows_in_view(self, height: int) -> range:
        """Indices of the rows that are drawn, with the selected one in the middle."""
        room = height - HEADS
        top = min(max(self.selected - room // 2, 0), max(self.count - room, 0))
        return range(top, min(top + room, self.count))
