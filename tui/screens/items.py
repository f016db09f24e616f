"""Screen of the items of one task: what a lane changed, and each item's whole text."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container

from ...engine.errors import UserError
from ...engine.results.comparison import TaskComparison
from ...engine.results.ranked_items import Change, ItemRow, ranked_items
from ...engine.results.records import Header, Item
from ...engine.trace.printable import visible
from ..widgets.item_list import ItemList, ListedTask
from ..widgets.item_panel import ItemPanel
from ..widgets.key_line import KeyLine
from .help import HelpScreen
from .item_session import ItemSessions
from .list_screen import LEAVE, MOVES, ListScreen
from .results_help import RESULTS_TABLES
from .results_keys import ITEM_KEYS


class ItemsScreen(ListScreen):
    """List of a task's items in one lane, on top of the results table."""

    BINDINGS: ClassVar[list[BindingType]] = [*ITEM_KEYS, *MOVES, LEAVE]
    HORIZONTAL_BREAKPOINTS = [(0, "-below"), (160, "-beside")]  # noqa: RUF012
    FILTER_HINT = "question or answer"
    commands = ITEM_KEYS

    def __init__(
        self,
        header: Header,
        compared: TaskComparison,
        items: list[Item],
        lane: int,
        sessions: ItemSessions,
    ) -> None:
        super().__init__()
        self._header, self._compared, self._items = header, compared, items
        self._lane = lane
        self._sessions = sessions
        self._all: list[ItemRow] = []
        """Rows of the lane, whatever the filter."""
        self.rows: list[ItemRow] = []
        self._only_changes = False

    def compose(self) -> ComposeResult:
        yield from super().compose()
        with Container(id="items"):
            yield ItemList()
            yield ItemPanel()
        yield KeyLine([*ITEM_KEYS])

    def on_mount(self) -> None:
        self._show_lane(self._lane)

    # -- what is listed -----------------------------------------------------------------------

    def _show_lane(self, lane: int) -> None:
        """List what a lane makes of the items; its first row is selected."""
        self._lane, self.selected = lane, 0
        metric = next(iter(self._compared.metrics), None)
        self._all = ranked_items(self._items, self._compared.kind, metric, lane)
        self.rows = []
        self.list_rows()

    def list_rows(self) -> None:
        item = self.row.item if self.row else None
        words = self.filter_words
        self.rows = [
            row
            for row in self._all
            if not (self._only_changes and row.change > Change.BETTER) and _has(row, words)
        ]
        index = next((n for n, row in enumerate(self.rows) if row.item is item), self.selected)
        self.select(index)
        self.draw()

    def draw(self) -> None:
        compared, names = self._compared, [lane.name for lane in self._header.lanes]
        listed = ListedTask(
            compared.kind,
            compared.metrics,
            (names[0], names[self._lane]),
            has_variant=self._lane > 0,
            noise_floor=self._header.noise_floor,
        )
        count, shown = len(self._all), len(self.rows)
        asked = f"{count}" if count == compared.asked else f"{count} answered of {compared.asked}"
        title = f"{compared.name} · {names[self._lane]}"
        changes = "only ✗ and ✓, " if self._only_changes else ""
        note = f"{changes}{shown} of {asked}" if shown < count else f"{changes}{asked} items"
        self.query_one(ItemList).show(title, note, listed, self.rows, self.selected, self._empty)
        self.query_one(ItemPanel).show(self.row, listed)

    @property
    def _empty(self) -> str:
        """Sentence in place of rows."""
        if not self._all:
            return "No item is answered yet."
        if self._only_changes:
            return "No item is ✗ or ✓ here; f lists all."
        return "No item has these words; esc clears the filter."

    @property
    def row_count(self) -> int:
        return len(self.rows)

    @property
    def row(self) -> ItemRow | None:
        """Selected row."""
        return self.rows[self.selected] if self.selected < len(self.rows) else None

    # -- keys ---------------------------------------------------------------------------------

    def action_lane(self, by: int) -> None:
        """Look at another lane, at the same item."""
        row, lanes = self.row, len(self._header.lanes)
        self._show_lane((self._lane + by) % lanes)
        if row is not None:
            index = next((n for n, own in enumerate(self.rows) if own.item is row.item), 0)
            self.select(index)
            self.draw()

    def action_changes(self) -> None:
        self._only_changes = not self._only_changes
        self.list_rows()

    def action_turn_page(self, pages: int) -> None:
        self.query_one(ItemPanel).turn_page(pages)

    def action_open(self) -> None:
        if self.row is not None:
            name = self._header.lanes[self._lane].name
            try:
                self._sessions.open(self._header, self.row.item, name)
            except UserError as error:
                self.notify(visible(f"{error}."), severity="warning", markup=False)

    def open_row(self) -> None:
        self.action_open()

    def action_help(self) -> None:
        notes = [
            *self._header.notes,
            *(note for task in self._compared.tasks for note in task.notes),
        ]
        self.app.push_screen(HelpScreen(ITEM_KEYS, "", "", notes, RESULTS_TABLES))

    def action_leave(self) -> None:
        self.dismiss()


def _has(row: ItemRow, words: list[str]) -> bool:
    """Whether a row's question or answers have all words, as they are shown."""
    if not words:
        return True
    texts = [row.item.question, row.gold, *row.answers]
    text = visible("\n".join(texts), keep="\n").casefold()
    return all(word in text for word in words)
