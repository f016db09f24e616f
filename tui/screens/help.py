"""Help: keys, marks, measures and words, found as their letters are typed."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rich.style import Style
from rich.table import Table as Grid
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Input, Static

from ...engine.trace.printable import visible
from ..widgets.fields import TextField
from ..widgets.key_line import Key
from ..widgets.status import NOTES
from .dialog import Dialog
from .help_text import INSPECTOR_TABLES, Table
from .keys import PALETTE

NONE_FOUND = "Nothing here has these words."


class Row(NamedTuple):
    term: str
    meaning: str
    action: str = ""
    """Action of a click on the row."""
    keywords: str = ""
    """Words that it is found by, besides those it shows."""

    def has(self, words: Sequence[str]) -> bool:
        text = f"{self.term} {self.meaning} {self.keywords}".casefold()
        return all(word in text for word in words)


class Section(NamedTuple):
    title: str
    rows: Sequence[Row]


class HelpScreen(Dialog[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear_or_close", "close", id="help-close"),
        Binding("up", "scroll('up')", "up", id="help-up"),
        Binding("down", "scroll('down')", "down", id="help-down"),
        Binding("pageup", "scroll('page_up')", "page up", id="help-page-up"),
        Binding("pagedown", "scroll('page_down')", "page down", id="help-page-down"),
    ]

    def __init__(
        self,
        keys: Sequence[Key],
        view: str,
        view_noun: str,
        notes: Sequence[str],
        tables: Sequence[Table] = INSPECTOR_TABLES,
    ) -> None:
        """The keys of the chosen view come first; `notes` are on the numbers."""
        super().__init__()
        self._tables = tables
        self._keys = keys
        self._view = view
        self._view_noun = view_noun
        self._notes = notes

    def compose(self) -> ComposeResult:
        here = [key for key in self._keys if self._view in key.views]
        self._sections = [
            Section("Notes on the numbers", [Row(NOTES, visible(note)) for note in self._notes]),
            Section(self._view_noun, self._rows(here)),
            Section("Keys", self._rows([*(key for key in self._keys if key not in here), PALETTE])),
            *(Section(title, [Row(*row) for row in rows]) for title, rows in self._tables),
        ]
        with Vertical(classes="dialog"):
            yield TextField(placeholder="letters find keys, marks, measures and words")
            with VerticalScroll(can_focus=False):
                yield Static(NONE_FOUND, id="help-none", markup=False)
                for section in self._sections:
                    yield Static(section.title, classes="dialog-title", markup=False)
                    yield Static(classes="help-rows")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Close  esc", compact=True)

    def on_mount(self) -> None:
        self._find("")

    def _rows(self, keys: Sequence[Binding]) -> list[Row]:
        # The key line shows the first view's key for all of them.
        return [
            Row(
                key.key if key.key.isdigit() else self.app.get_key_display(key),
                key.tooltip or key.description,
                key.action,
                f"{key.noun} {key.keywords}" if isinstance(key, Key) else "",
            )
            for key in keys
        ]

    # -- the search ---------------------------------------------------------------------------

    @on(Input.Changed)
    def _read(self, event: Input.Changed) -> None:
        self._find(event.value)

    def _find(self, query: str) -> None:
        words = query.casefold().split()
        titles = self.query(".dialog-title").results(Static)
        tables = self.query(".help-rows").results(Static)
        count = 0
        for section, title, table in zip(self._sections, titles, tables, strict=True):
            rows = [row for row in section.rows if row.has(words)]
            title.display = table.display = bool(rows)
            table.update(_table(rows))
            count += len(rows)
        self.query_one("#help-none").display = not count
        self.query_one(VerticalScroll).scroll_home(animate=False)

    def action_clear_or_close(self) -> None:
        field = self.query_one(TextField)
        if field.value:
            field.value = ""
        else:
            self.dismiss()

    def action_scroll(self, how: str) -> None:
        getattr(self.query_one(VerticalScroll), f"scroll_{how}")(animate=False)

    def action_do(self, action: str) -> None:
        """Run a clicked row's action on the screen below."""
        below = self.app.screen_stack[-2]
        self.dismiss()
        self.app.call_later(below.run_action, action)

    @on(Button.Pressed)
    def _close(self) -> None:
        self.dismiss()


def _table(rows: Sequence[Row]) -> Grid:
    table = Grid.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", min_width=10, no_wrap=True)
    table.add_column()
    before = ""
    for row in rows:
        style = Style(meta={"@click": f"screen.do({row.action!r})"} if row.action else {})
        table.add_row(Text("" if row.term == before else row.term, style), Text(row.meaning, style))
        before = row.term
    return table
