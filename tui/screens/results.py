"""Screen of an evaluation: tasks × lanes, and all numbers of the cell under the cursor."""

from time import monotonic, sleep
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.widgets import Static
from textual.worker import get_current_worker

from ...engine.errors import UserError
from ...engine.results.comparison import TaskComparison, compare
from ...engine.results.file import ResultsFollower
from ...engine.trace.file import is_being_written
from ...engine.trace.printable import visible
from ..session_port import OpenSession
from ..widgets.cell_panel import CellPanel
from ..widgets.key_line import KeyLine
from ..widgets.results_grid import ResultsGrid
from .dialog import UpperScreen
from .help import HelpScreen
from .item_session import ItemSessions
from .items import ItemsScreen
from .results_help import RESULTS_TABLES
from .results_keys import RESULTS_KEYS
from .terminal_size import is_too_small, too_small_notice

POLL_SECONDS = 1.0
"""Pause between looks at a file that grows."""

PAUSE_SECONDS = 0.05
"""Time after which the end of the program is noticed."""

PAGES: list[BindingType] = [
    Binding("pageup", "page(-1)", "a page up", show=False),
    Binding("pagedown", "page(1)", "a page down", show=False),
    Binding("home", "move(-1000000, 0)", "first", show=False),
    Binding("end", "move(1000000, 0)", "last", show=False),
]


class ResultsScreen(UpperScreen[None]):
    """Table of an evaluation file, which is followed while another process writes it."""

    BINDINGS: ClassVar[list[BindingType]] = [*RESULTS_KEYS, *PAGES]
    HORIZONTAL_BREAKPOINTS = [(0, "-below"), (160, "-beside")]  # noqa: RUF012
    AUTO_FOCUS = ""
    commands = RESULTS_KEYS

    class Compared(Message):
        """The lanes have been compared over all items that are there."""

        def __init__(self, rows: list[TaskComparison], *, running: bool) -> None:
            super().__init__()
            self.rows = rows
            self.running = running

    class Damaged(Message):
        def __init__(self, sentence: str) -> None:
            super().__init__()
            self.sentence = sentence

    def __init__(self, follower: ResultsFollower, open_session: OpenSession) -> None:
        super().__init__()
        self._follower = follower
        self._header = follower.results.header
        self._open_session = open_session
        self._rows: list[TaskComparison] = []
        self._running = False
        self._problem = ""
        self._row = 0
        # The control's figures are a floor; others are looked for first.
        recipes = [lane.recipe for lane in self._header.lanes]
        pruned = [n for n, recipe in enumerate(recipes) if recipe not in (None, "control")]
        self._lane = next(iter(pruned), 0)

    def compose(self) -> ComposeResult:
        with Container(id="results"):
            yield ResultsGrid()
            yield CellPanel()
        yield KeyLine([*RESULTS_KEYS])
        yield Static(id="too-small")

    def on_mount(self) -> None:
        self._sessions = ItemSessions(self.app, self._open_session)
        self._draw()
        self._follow()

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(is_too_small(event.size), "too-small")
        self.query_one("#too-small", Static).update(too_small_notice(event.size))

    # -- the file -----------------------------------------------------------------------------

    @work(thread=True)
    def _follow(self) -> None:
        """Compare what is there, and again whenever the file has grown, until it is complete."""
        worker, follower = get_current_worker(), self._follower
        shown: tuple[int, bool] | None = None
        while not worker.is_cancelled:
            try:
                follower.poll()
            except UserError as error:
                self.post_message(self.Damaged(str(error)))
                return
            running = not follower.results.complete and is_being_written(follower.path)
            if shown != (follower.end, running):
                shown = follower.end, running
                self.post_message(self.Compared(compare(follower.results), running=running))
            if follower.results.complete:
                return
            due = monotonic() + POLL_SECONDS
            while monotonic() < due and not worker.is_cancelled:
                sleep(PAUSE_SECONDS)

    @on(Compared)
    def _take_rows(self, event: Compared) -> None:
        self._rows, self._running = event.rows, event.running
        self._draw()

    @on(Damaged)
    def _take_problem(self, event: Damaged) -> None:
        self._problem, self._running = event.sentence, False
        self.notify(visible(f"{event.sentence}."), severity="error", markup=False)
        self._draw()

    # -- drawing ------------------------------------------------------------------------------

    def _draw(self) -> None:
        model = self._header.model
        title = f"{model.name}  {model.device}·{model.dtype}"
        names = [lane.name for lane in self._header.lanes]
        cursor = self._row, self._lane
        self.query_one(ResultsGrid).show(title, self._progress, names, self._rows, cursor)
        row = self._rows[self._row] if self._rows else None
        self.query_one(CellPanel).show(row, self._lane, self._header.noise_floor)

    @property
    def _progress(self) -> str:
        if not self._rows:
            return "comparing the lanes …"
        tasks = [row for row in self._rows if not row.group]
        there, asked = sum(row.items for row in tasks), sum(row.asked for row in tasks)
        if self._problem:
            return f"damaged: the {there} items before are shown"
        if all(row.complete for row in tasks):
            return f"{there} items"
        return f"{'running' if self._running else 'stopped'}: {there} of {asked} items"

    # -- keys ---------------------------------------------------------------------------------

    def action_move(self, rows: int, lanes: int) -> None:
        self._row = max(0, min(self._row + rows, len(self._rows) - 1))
        self._lane = max(0, min(self._lane + lanes, len(self._header.lanes) - 1))
        self._draw()

    def action_page(self, pages: int) -> None:
        self.action_move(pages * self.query_one(ResultsGrid).page, 0)

    def on_mouse_scroll_down(self) -> None:
        self.action_move(1, 0)

    def on_mouse_scroll_up(self) -> None:
        self.action_move(-1, 0)

    @on(ResultsGrid.Picked)
    def _pick(self, event: ResultsGrid.Picked) -> None:
        self._row, self._lane = event.row, event.lane
        self._draw()
        if event.again:
            self.action_open()

    def action_open(self) -> None:
        """List the items of the task, or of all tasks of a group."""
        if not self._rows:
            return
        row = self._rows[self._row]
        items = [
            item
            for task in row.tasks
            for item in [*self._follower.results.items.get(task.name, [])]
        ]
        self.app.push_screen(ItemsScreen(self._header, row, items, self._lane, self._sessions))

    def action_help(self) -> None:
        notes = [*self._header.notes]
        for task in self._header.tasks:
            notes += [f"{task.name}: {note}" for note in task.notes]
        self.app.push_screen(HelpScreen(RESULTS_KEYS, "", "", notes, RESULTS_TABLES))
