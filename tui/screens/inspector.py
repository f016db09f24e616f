"""Main screen, which draws a trace at a cursor; subclasses decode or replay it."""

from dataclasses import replace
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import ContentSwitcher, Static

from ...engine.errors import UserError
from ...engine.trace.printable import visible
from ...engine.trace.trace import Trace
from ..moment import Moment
from ..throttle import Throttle
from ..user.state_files import write_copied_text
from ..views.base import InspectorView
from ..views.catalog import VIEWS
from ..views.layers import MAP, LayersView
from ..widgets.key_line import Key, KeyLine, key_for
from ..widgets.overview import Overview
from ..widgets.panel import Clicked
from ..widgets.status import StatusLine
from .blame_help import not_blamable
from .choose import BranchesDialog
from .export import ExportDialog
from .help import HelpScreen
from .keys import ALL_VIEWS, KEYS
from .navigation import TEXT_FRAMES, Navigator
from .terminal_size import is_too_small, too_small_notice

CHART_FRAMES = 10
"""Frames of charts a second, at most."""

OVERVIEW = "overview"


class Inspector(Navigator):
    """Screen that draws `trace` at the cursor."""

    keys: ClassVar[list[Key]] = KEYS
    """Keys of the screen, but for the chosen view's own."""
    BINDINGS: ClassVar[list[BindingType]] = [*KEYS]

    def __init__(self) -> None:
        super().__init__()
        self._frame = Throttle(self, TEXT_FRAMES, self._draw_text)
        self._chart_frame = Throttle(self, CHART_FRAMES, self._draw_charts)
        self._view_frames = {
            name: Throttle(self, view.FRAMES, self._draw_view) for name, view, _ in VIEWS
        }

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        with ContentSwitcher(initial=OVERVIEW, id="views"):
            yield Overview(id=OVERVIEW)
            for name, view, _ in VIEWS:
                yield view(id=name)
        yield KeyLine(
            [
                # A click where one key stands for all views leads through them.
                replace(key, action="next_view") if key.key_display == ALL_VIEWS else key
                for key in self.keys
                if key.id not in self.hidden_keys
            ]
        )
        yield Static(id="too-small")

    # -- for subclasses -----------------------------------------------------------------------

    hidden_keys: ClassVar[frozenset[str]] = frozenset()
    """Ids of the bindings that the key line leaves out."""

    @property
    def state(self) -> str:
        """State of decoding or replay, for the status line."""
        raise NotImplementedError

    @property
    def recording(self) -> str:
        """Name of the trace's file, for the status line."""
        raise NotImplementedError

    alert = ""
    """Problem that the status line shows; empty if there is none."""

    def switch(self, branch: int) -> None:
        """Show another branch of the trace."""
        raise NotImplementedError

    can_read: ClassVar[bool]
    """Whether there is a model to read a step's layers with."""

    def read_step(self, number: int) -> None:
        """Read a step through the logit lens, if `can_read`."""

    def blame(self, moment: Moment) -> object:
        """Show the blame of the selected lane at the cursor."""
        raise NotImplementedError

    @property
    def export_name(self) -> str:
        """Name to propose for an exported file, without its suffix."""
        raise NotImplementedError

    # -- why ----------------------------------------------------------------------------------

    def action_why(self) -> None:
        """Show why the selected lane leaves the baseline at the cursor, or say why not."""
        if self.trace is None:
            return
        moment = self.moment_of(self.trace)
        sentence = not_blamable(moment, (key_for(self, "lane-down"), key_for(self, "forward")))
        if sentence:
            self.tell(sentence)
        else:
            self.stop_playing()
            self.blame(moment)

    # -- what if ------------------------------------------------------------------------------

    @work
    async def action_branches(self) -> None:
        if self.trace is not None:
            branch = await self.app.push_screen_wait(BranchesDialog(self.trace))
            if branch is not None and branch != self.trace.branch:
                self.follow()
                self.switch(branch)

    # -- the mouse ----------------------------------------------------------------------------

    @on(Clicked)
    def _go_to_clicked(self, event: Clicked) -> None:
        if event.lane is not None:
            self.select(event.lane)
        if event.step is not None:
            self.move_to(event.step)

    def on_mouse_scroll_down(self) -> None:
        self.move_to(self.cursor + 1)

    def on_mouse_scroll_up(self) -> None:
        self.move_to(self.cursor - 1)

    # -- the view -----------------------------------------------------------------------------

    @property
    def chosen_view(self) -> str:
        """Id of the view on the screen: the overview, or one of `VIEWS`."""
        return self.query_one("#views", ContentSwitcher).current or OVERVIEW

    def action_view(self, name: str) -> None:
        """Show a view; the overview instead if it is shown already."""
        switcher = self.query_one("#views", ContentSwitcher)
        switcher.current = OVERVIEW if name == self.chosen_view else name
        self.query_one(KeyLine).show_view(self.chosen_view)
        # A widget knows its size when it has been laid out.
        self.call_after_refresh(self.draw, by_key=True)

    def action_leave(self) -> None:
        """Show the overview; in a live session, cancel the work that is being done instead."""
        self.action_view(OVERVIEW)

    def action_next_view(self) -> None:
        names = [OVERVIEW, *(name for name, _, _ in VIEWS)]
        self.action_view(names[(names.index(self.chosen_view) + 1) % len(names)])

    def action_lens(self) -> None:
        """Turn through the modes of view 2, and read a step that is not read yet."""
        if self.trace is None:
            return
        moment = self.moment_of(self.trace)
        layers = self.query_one(LayersView)
        unread = moment.step is not None and moment.step.lens is None
        if self.chosen_view != "layers":
            self.action_view("layers")
            if layers.mode == MAP:
                layers.turn()
        elif layers.mode == MAP or not (unread and self.can_read):
            layers.turn()
        if unread and layers.mode != MAP:
            self.read_step(moment.cursor)
        self.draw(by_key=True)

    def action_mode(self) -> None:
        if self.chosen_view == "layers":
            self.action_lens()
        elif self.chosen_view != OVERVIEW:
            self.query_one(f"#{self.chosen_view}", InspectorView).turn()
            self.draw(by_key=True)

    def action_page(self, pages: int) -> None:
        self.query_one(LayersView).scroll_pages(pages)

    # -- drawing ------------------------------------------------------------------------------

    def draw(self, *, by_key: bool = False) -> None:
        """Request a frame of the trace; `by_key`: sooner, as the user waits for it."""
        if self.trace is None:
            return
        self._frame.request(by_key=by_key)
        if self.chosen_view == OVERVIEW:
            self._chart_frame.request(by_key=by_key)
        else:
            self._view_frames[self.chosen_view].request(by_key=by_key)

    @property
    def pending(self) -> bool:
        """Whether a frame that was asked for is still to be drawn."""
        frames = [self._frame, self._chart_frame, *self._view_frames.values()]
        return any(part.pending for part in (*frames, *self.query(InspectorView)))

    def moment_of(self, trace: Trace) -> Moment:
        steps = trace.steps
        lane = min(self.lane, len(trace.header.lanes) - 1)
        count = len(trace.branches)
        branch = f"branch {trace.branch + 1} of {count}" if count > 1 else ""
        cursor = self.cursor_in(steps)
        return Moment(trace.header, steps, cursor, lane, branch, trace.preview)

    def _draw_text(self) -> None:
        if self.trace is None:
            return
        moment = self.moment_of(self.trace)
        self.query_one(StatusLine).show(
            moment,
            state=self.state,
            sought=self.sought_label(moment),
            recording=self.recording,
            alert=self.alert,
        )
        if self.chosen_view == OVERVIEW:
            self.query_one(Overview).show_text(moment)

    def _draw_view(self) -> None:
        if self.trace is not None and self.chosen_view != OVERVIEW:
            self.query_one(f"#{self.chosen_view}", InspectorView).show(self.moment_of(self.trace))

    def _draw_charts(self) -> None:
        if self.trace is None:
            return
        self.query_one(Overview).show_charts(self.moment_of(self.trace))

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(is_too_small(event.size), "too-small")
        self.query_one("#too-small", Static).update(too_small_notice(event.size))

    # -- the other keys -----------------------------------------------------------------------

    def action_export(self) -> None:
        if self.trace is not None:
            # Of this screen, which the dialog is about to cover.
            screenshot = self.app.export_screenshot()
            self.app.push_screen(ExportDialog(self.trace, self.export_name, screenshot))

    def action_copy(self) -> None:
        """Copy what is selected with the mouse, or the selected lane's text.

        Control characters become the glyphs that are shown for them: a shell must not act on what
        a model wrote. Newlines and tabs stay, or the text would not be the lane's.
        """
        if self.trace is None:
            return
        what, text = "the selection", self.get_selected_text()
        if not text:
            moment = self.moment_of(self.trace)
            tokens = [step.lanes[moment.lane] for step in moment.steps[: moment.cursor + 1]]
            text = "".join(token.text for token in tokens if token)
            what = f"{moment.header.lanes[moment.lane].name} up to step {moment.cursor}"
        text = visible(text, keep="\n\t")
        self.app.copy_to_clipboard(text)
        try:
            where = f"it is also in {write_copied_text(text)}"
        except UserError as problem:
            where = str(problem)
        self.notify(visible(f"Copied {what}; {where}"), markup=False)

    def action_help(self) -> None:
        keys = [binding for binding in self.keys if binding.id not in self.hidden_keys]
        noun = next((view.NOUN for name, view, _ in VIEWS if name == self.chosen_view), "Overview")
        notes = self.trace.header.notes if self.trace is not None else []
        self.app.push_screen(HelpScreen(keys, self.chosen_view, noun, notes))
