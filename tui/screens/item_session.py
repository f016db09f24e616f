"""Items of an evaluation, opened as sessions of one model that stays loaded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType

from ...engine.errors import OptionError, UserError
from ...engine.options import Options
from ...engine.results.item_session import item_options
from ...engine.results.records import Header, Item
from ...engine.session.changes import RestartChanges
from ...engine.trace.printable import visible
from ...engine.trace.records import Sampling
from ...engine.trace.trace import Trace
from ..session_port import OpenSession
from ..session_thread import Stage
from ..user.recorded_sessions import new_trace_path
from ..widgets.key_line import Key
from ..widgets.loading import LoadingPanel, Remedies
from .inspector import OVERVIEW, Inspector
from .keys import KEYS
from .live import LiveInspector

BACK = Key(
    "q",
    "back",
    "back",
    tooltip="Back to the list of items; the model stays loaded",
    id="item-leave",
    noun="Back",
    keywords="leave close quit list items",
)


@dataclass(frozen=True)
class OpenedItem:
    """Item to open, and the lane to look at."""

    header: Header
    item: Item
    lane: str
    options: Options
    """Options of its session."""


class ItemInspector(LiveInspector):
    """Live inspector of an item, which leads back to the list and takes another item then."""

    edits_unopened = False
    keys: ClassVar[list[Key]] = [*(key for key in KEYS if key.id != "quit"), BACK]
    BINDINGS: ClassVar[list[BindingType]] = [*keys]

    def __init__(
        self, opened: OpenedItem, record_to: Path | None, open_session: OpenSession
    ) -> None:
        super().__init__(opened.options, record_to, open_session)
        self._opened = opened
        self._recipes: tuple[str | None, ...] = ()
        """Recipes of the lanes that were loaded, which the user may change for an item."""

    def compose(self) -> ComposeResult:
        yield LoadingPanel(self._options.model, self._stages, remedies=_remedies)
        yield from Inspector.compose(self)

    def _stages(self) -> list[Stage]:
        work = self._thread.activity
        return self._thread.stages if self._thread.session is None else [work] if work else []

    # -- from item to item --------------------------------------------------------------------

    def open(self, opened: OpenedItem) -> None:
        """Show an item: as it was left, if it was the last one."""
        before, self._opened = self._opened, opened
        if self.trace is not None and opened.item is before.item:
            self._select_lane()
            return
        self.trace = None
        self.add_class("loading")
        loading = self.query_one(LoadingPanel)
        failed = loading.problem and self._thread.session is None
        loading.begin_again()
        if failed:
            self._options = opened.options
            self._open_again()
        else:
            self._ask_for_item()

    def _ask_for_item(self) -> None:
        """Have the session, once it is loaded, read the item instead of what it was to read."""
        thread, options = self._thread, self._opened.options
        thread.cancel()
        session = thread.session
        if session is not None and self._recipes != _recipes(session.trace):
            thread.set_variants(options.variants or ())
        thread.restart(**_changes(options))

    def is_wanted(self, trace: Trace) -> bool:
        if self.trace is not None:
            return True
        self._recipes = self._recipes or _recipes(trace)
        asked = trace.header.options
        return (
            asked is not None
            and _changes(asked) == _changes(self._opened.options)
            and _recipes(trace) == self._recipes
        )

    def take_trace(self, trace: Trace) -> None:
        begins = self.trace is None
        super().take_trace(trace)
        if not begins:
            return
        self._select_lane()
        if self.chosen_view != self._own_view:
            self.action_view(self._own_view)
        if self._opened.options.answer_tokens and not trace.steps:
            # The view of the answers shows a step.
            self._thread.step()
        for sentence in _caveats(self._opened, trace):
            self.notify(visible(sentence), severity="warning", markup=False)

    def _select_lane(self) -> None:
        names = [lane.name for lane in self.trace.header.lanes] if self.trace else []
        if self._opened.lane in names:
            self.select(names.index(self._opened.lane))

    @property
    def _own_view(self) -> str:
        """View that the item is opened in."""
        return "subspace" if self._opened.options.answer_tokens else OVERVIEW

    # -- keys ---------------------------------------------------------------------------------

    def action_leave(self) -> None:
        """Cancel work on the item's session, go back to the view it opened in, or to the list."""
        if self.trace is None:
            self.action_back()
        elif self._thread.activity is not None:
            super().action_leave()
        elif self.chosen_view in (OVERVIEW, self._own_view):
            self.action_back()
        else:
            self.action_view(self._own_view)

    def action_back(self) -> None:
        """Leave the session as it is; what is decoded goes no further."""
        if self.is_current:
            self.stop_playing()
            self._thread.pause()
            if self.trace is None and self._thread.session is not None:
                self._thread.cancel()
            self.app.pop_screen()

    def action_restart(self) -> None:
        if self.trace is not None:
            super().action_restart()
        elif self.query_one(LoadingPanel).problem:
            self.open(self._opened)


class ItemSessions:
    """The one inspector of items, made when the first is opened."""

    def __init__(self, app: App[None], open_session: OpenSession) -> None:
        self._app = app
        self._open_session = open_session
        self._inspector: ItemInspector | None = None

    def open(self, header: Header, item: Item, lane: str) -> None:
        """Open an item on top of all screens. Raises `UserError` if it can be no session."""
        opened = OpenedItem(header, item, lane, item_options(header, item))
        if self._inspector is None:
            self._inspector = ItemInspector(opened, self._recording_path(), self._open_session)
            # An installed screen is not closed with the model when it is left.
            self._app.install_screen(self._inspector, "item")
            self._app.push_screen(self._inspector)
        else:
            self._app.push_screen(self._inspector)
            self._inspector.open(opened)

    def _recording_path(self) -> Path | None:
        try:
            return new_trace_path()
        except UserError as error:
            sentence = f"The sessions of items are not recorded: {error}."
            self._app.notify(visible(sentence), severity="warning", markup=False)
            return None


def _changes(options: Options) -> RestartChanges:
    """What a session reads and how it decodes, without the model and its variants.

    The texts of tokens are the tokenizer's to say.
    """
    fields = {name: getattr(options, name) for name in Sampling.__struct_fields__}
    changes = RestartChanges(context=options.context, sampling=Sampling(**fields))
    if options.prompt_tokens is None:
        changes |= {"prompt": options.prompt, "raw": options.raw}
    else:
        changes |= {"prompt_tokens": options.prompt_tokens}
    if options.answer_tokens is None:
        changes |= {"answers": options.answers or ()}
    else:
        changes |= {"answer_tokens": options.answer_tokens}
    return changes


def _recipes(trace: Trace) -> tuple[str | None, ...]:
    return tuple(lane.recipe for lane in trace.header.lanes)


def _caveats(opened: OpenedItem, trace: Trace) -> Iterator[str]:
    """Sentences on what the session does not show as the evaluation does."""
    then, now = opened.header.model, trace.header.model
    if (then.device, then.dtype) != (now.device, now.dtype):
        yield (
            f"The evaluation ran on {then.device} in {then.dtype} and this session runs on "
            f"{now.device} in {now.dtype}: numbers differ by rounding, and near ties may flip."
        )
    options = opened.item.options
    if len(options) > 1 and not opened.options.answer_tokens:
        yield "The options do not differ in their first tokens, so view 4 cannot compare them."
    elif any(len(option.tokens) > 1 for option in options):
        yield "View 4 compares the first tokens of the options; the list rates whole options."


def _remedies(error: UserError) -> Remedies:
    back = ("item-leave", "leads back to the list")
    return (back,) if isinstance(error, OptionError) else (("restart", "tries again"), back)
