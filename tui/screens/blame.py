"""Screen that shows why a lane leaves the baseline at a step: which parts, where in the text, where
in depth."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import ContentSwitcher, Label, Static

from ...engine.errors import UserError
from ...engine.model.dropped import SUBLAYERS
from ...engine.trace.analysis.blame import PartEffect, by_importance, effects
from ...engine.trace.analysis.blame_sentences import (
    chosen_after_another_text,
    verdict,
    where_in_depth,
    where_in_text,
)
from ...engine.trace.blame import Blame, BlamedTokens, Causes, Part, find_blame
from ...engine.trace.figures import kl
from ...engine.trace.printable import visible
from ...engine.variants.recipe_edits import with_restored
from ...engine.variants.recipes import Recipe
from ..moment import Moment
from ..session_thread import SessionThread
from ..widgets.blame_curves import DepthLegend, depth_picture, point_after, text_picture
from ..widgets.blame_map import BlameMap, BlameMapContent
from ..widgets.blame_table import CumulativePanel, PartTable
from ..widgets.blame_text import BlamedText, ReadText
from ..widgets.blame_title import PAGES, BlamePages, BlameTitle, TitleContent
from ..widgets.chart import Chart
from ..widgets.key_line import KeyLine, key_for
from .blame_help import BLAME_TABLES, WHAT, reading_clause, same_history
from .blame_keys import BLAME_KEYS
from .dialog import UpperScreen
from .help import HelpScreen
from .terminal_size import is_too_small, too_small_notice
from .variant_notes import recipe_of


@dataclass(frozen=True)
class BlameCommands:
    """What a live session does for the screen."""

    measure: Callable[[BlamedTokens, Causes], object]
    apply: Callable[[Recipe], object]
    """Make a lane of a recipe, next to the one that is blamed."""
    cancel: Callable[[], object]


class BlameScreen(UpperScreen[Recipe | None]):
    """Screen of the blame of one lane at one step, which returns the recipe of a lane to decode on
    with: it is there then."""

    # The key that opens a screen leads back from it too, as with the views.
    BINDINGS: ClassVar[list[BindingType]] = [*BLAME_KEYS, Binding("w,q", "leave", show=False)]
    AUTO_FOCUS = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-below"), (110, "-beside")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall"), (48, "-very-tall")]  # noqa: RUF012
    commands = BLAME_KEYS

    def __init__(self, moment: Moment, tokens: BlamedTokens, session: BlameCommands | str) -> None:
        """`session` measures; without one it is a sentence on how to get one."""
        super().__init__()
        self._moment = moment
        self._tokens: BlamedTokens = tokens
        self._session = session
        self._page: Causes = "parts"
        self._selected: Part | None = None
        self._asked: list[tuple[BlamedTokens, Causes]] = []
        """What the session was asked for and has not answered, the oldest first."""
        self._trying: Recipe | None = None
        """Recipe of the lane that is being made."""
        self._work = ""
        self._cancelled = False
        self._refusal = ""
        """Why what the page shows could not be measured."""
        self._problem = ""
        self._drawable = False
        """Whether the screen is composed, and not left."""

    def compose(self) -> ComposeResult:
        yield BlameTitle(id="blame-title")
        yield Label("", id="blame-verdict")
        yield BlamePages()
        with ContentSwitcher(initial="page-parts", id="blame-pages"):
            with Vertical(id="page-parts"):
                yield BlameMap()
                with Container(id="blame-lists"):
                    yield PartTable()
                    yield CumulativePanel()
            with Vertical(id="page-text"):
                yield Label("", classes="blame-words")
                yield BlamedText()
                yield Chart(id="text-chart")
            with Vertical(id="page-depth"):
                yield Label("", classes="blame-words")
                yield DepthLegend()
                yield Chart(id="depth-chart")
        yield Label("", id="blame-foot")
        yield KeyLine([*BLAME_KEYS])
        yield Static(id="too-small")

    def on_mount(self) -> None:
        self._drawable = True
        self._measure_page()
        self._draw()

    def on_unmount(self) -> None:
        self._drawable = False

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(is_too_small(event.size), "too-small")
        self.query_one("#too-small", Static).update(too_small_notice(event.size))

    # -- for the opener -----------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        return bool(self._asked) or self._trying is not None

    def show_work(self, thread: SessionThread, work: str) -> None:  # noqa: ARG002
        self._work = work
        self._asked = [asked for asked in self._asked if not self._has(*asked)]
        self._draw()

    def show_refusal(self, sentence: str) -> None:
        if self._trying is not None and not self._asked:
            self._trying = None
            self._problem = sentence
        else:
            # The session takes its commands in their order.
            self._asked = self._asked[1:]
            self._refusal = sentence
        self._draw()

    def show_cancelled(self) -> None:
        self._cancelled = bool(self._asked)
        if self._trying is not None:
            self._problem = "Cancelled: the lanes are as they were."
        self._asked, self._trying = [], None
        self._draw()

    def leave_trace(self) -> None:
        """Close: with the recipe, if the other trace is the one that has its lane."""
        self.dismiss(self._trying)

    # -- what is known ------------------------------------------------------------------------

    def _blame(self, tokens: BlamedTokens) -> Blame | None:
        step = self._moment.step
        return find_blame(step.blames, self._moment.lane, tokens) if step else None

    def _has(self, tokens: BlamedTokens, what: Causes) -> bool:
        blame = self._blame(tokens)
        if blame is None or what == "parts":
            return blame is not None
        return (blame.in_text if what == "text" else blame.in_depth) is not None

    def _measure_page(self) -> None:
        """Ask for what the page shows, if it is neither there nor asked for."""
        asked = self._tokens, self._page
        self._cancelled, self._refusal = False, ""
        if isinstance(self._session, str) or self._has(*asked) or asked in self._asked:
            return
        self._asked.append(asked)
        self._session.measure(*asked)

    def _rows(self) -> list[PartEffect]:
        """Parts by importance."""
        blame = self._blame(self._tokens)
        return by_importance(effects(blame)) if blame else []

    # -- keys ---------------------------------------------------------------------------------

    def action_by_importance(self, by: int) -> None:
        self._move([row.part for row in self._rows()], by)

    def action_in_depth(self, by: int) -> None:
        blame = self._blame(self._tokens)
        self._move([part.part for part in blame.parts] if blame else [], by)

    def _move(self, parts: list[Part], by: int) -> None:
        if self._selected in parts:
            at = parts.index(self._selected) + by
            self._select(parts[min(max(at, 0), len(parts) - 1)])

    def _select(self, part: Part) -> None:
        self._selected, self._problem = part, ""
        self._draw()

    @on(BlameMap.Picked)
    def _pick_in_map(self, event: BlameMap.Picked) -> None:
        self._select(event.part)

    @on(PartTable.Picked)
    def _pick_in_table(self, event: PartTable.Picked) -> None:
        self._select(self._rows()[event.index].part)
        if event.again:
            self.action_decode_on()

    @on(BlamePages.Picked)
    def _turn_to_picked(self, event: BlamePages.Picked) -> None:
        self.action_page(event.page)

    def on_mouse_scroll_down(self) -> None:
        self.action_by_importance(1)

    def on_mouse_scroll_up(self) -> None:
        self.action_by_importance(-1)

    def action_next_page(self) -> None:
        pages: list[Causes] = [*PAGES]
        self.action_page(pages[(pages.index(self._page) + 1) % len(pages)])

    def action_page(self, page: Causes) -> None:
        self._page, self._problem = page, ""
        self.query_one("#blame-pages", ContentSwitcher).current = f"page-{page}"
        self._measure_page()
        # A widget knows its size when it has been laid out.
        self.call_after_refresh(self._draw)

    def action_tokens(self) -> None:
        """Turn to the other's tokens, if they are others."""
        if same_history(self._moment):
            self._say("Both have read the same tokens before this step.")
            return
        self._tokens, self._problem = "lane" if self._tokens == "baseline" else "baseline", ""
        self._measure_page()
        self._draw()

    def action_decode_on(self) -> None:
        """Make a lane of the selected part given back; one that is there is selected."""
        if self._trying is not None:
            return
        if self._selected is None:
            self._say("Nothing is measured yet, so there is no part to give back.")
            return
        try:
            recipe = self._restored(self._selected)
        except UserError as error:
            self._say(f"{error}.")
            return
        lanes = self._moment.header.lanes
        if any(lane.recipe == recipe.text for lane in lanes):
            self.dismiss(recipe)
        elif isinstance(self._session, str):
            self._say(self._session)
        else:
            self._trying = recipe
            self._session.apply(recipe)
            self._draw()

    def action_leave(self) -> None:
        """Cancel what is being done, or leave."""
        if self.waiting and isinstance(self._session, BlameCommands):
            self._session.cancel()
        else:
            self.dismiss()

    def action_help(self) -> None:
        notes = self._moment.header.notes
        self.app.push_screen(HelpScreen(BLAME_KEYS, "", "", notes, BLAME_TABLES))

    def _restored(self, part: Part) -> Recipe:
        """Recipe of the lane with a part given back. Raises `UserError` if the lane's own no longer
        parses, as with a path that is gone."""
        return with_restored(recipe_of(self._moment.header.lanes[self._moment.lane]), part)

    # -- drawing ------------------------------------------------------------------------------

    def _say(self, problem: str) -> None:
        self._problem = problem
        self._draw()

    def _draw(self) -> None:
        if not self._drawable:
            return
        moment, blame, rows = self._moment, self._blame(self._tokens), self._rows()
        parts = [row.part for row in rows]
        if self._selected not in parts:
            self._selected = parts[0] if parts else None
        lane = moment.header.lanes[moment.lane]
        reading = reading_clause(moment, self._tokens)
        title = TitleContent(lane.name, moment.cursor, reading, blame)
        self.query_one(BlameTitle).show(title)
        label = self.query_one("#blame-verdict", Label)
        label.update(Content(visible(self._finding(blame) if blame else self._missing("parts"))))
        label.set_class(blame is None, "notice")
        self._draw_parts(blame, rows)
        self._draw_text(blame)
        self._draw_depth(blame)
        self._draw_foot()

    def _finding(self, blame: Blame) -> str:
        """Verdict, and why a token differs that no part turned."""
        moment = self._moment
        after = chosen_after_another_text(blame, moment.header, moment.steps, moment.cursor)
        return f"{verdict(blame)} {after}".strip()

    def _draw_parts(self, blame: Blame | None, rows: list[PartEffect]) -> None:
        lane = self._moment.header.lanes[self._moment.lane]
        parts: dict[Part, PartEffect | None] = {row.part: row for row in rows}
        if blame is None:
            dropped = zip(SUBLAYERS, (lane.dropped_attention, lane.dropped_mlp), strict=True)
            parts = {Part(sublayer=s, layer=n): None for s, layers in dropped for n in layers}
        notes: list[str] = []
        if self._page == "parts" and rows:
            most = max((row.kl_reduction or 0.0 for row in rows), default=0.0)
            notes = [
                f"bars: nats of KL(p‖q) that a part given back takes off, 0 to {kl(most)}",
                f"bars: nats of KL given back, 0 to {kl(most)}",
                "bars: nats of KL given back",
            ]
        self.query_one(BlamePages).show(self._page, *notes)
        self.query_one(BlameMap).show(
            BlameMapContent(
                self._moment.header.model.layers,
                parts,
                blame.pruned.kl if blame else None,
                self._selected,
            )
        )
        selected = next((n for n, row in enumerate(rows) if row.part == self._selected), 0)
        self.query_one(PartTable).show(blame, rows, selected)
        self.query_one(CumulativePanel).show(blame)

    def _draw_text(self, blame: Blame | None) -> None:
        where = blame.in_text if blame else None
        words = self.query_one("#page-text .blame-words", Label)
        words.set_class(where is None, "notice")
        moment, text = self._moment, self._read_text()
        self.query_one(BlamedText).show(text, where)
        chart = self.query_one("#text-chart", Chart)
        chart.set_class(where is None, "-empty")
        if blame is None or where is None:
            words.update(Content(visible(self._missing("text"))))
            return
        words.update(Content(visible(where_in_text(blame, where, moment.cursor))))
        chart.show(text_picture(where, text.last + 1))

    def _draw_depth(self, blame: Blame | None) -> None:
        where = blame.in_depth if blame else None
        words = self.query_one("#page-depth .blame-words", Label)
        words.set_class(where is None, "notice")
        legend, chart = self.query_one(DepthLegend), self.query_one("#depth-chart", Chart)
        chart.set_class(where is None, "-empty")
        legend.set_class(where is None, "-empty")
        if blame is None or where is None:
            words.update(Content(visible(self._missing("depth"))))
            return
        words.update(Content(visible("\n".join(where_in_depth(blame, where)), keep="\n")))
        point = point_after(self._selected, where)
        legend.show(where, point)
        pruned = [part.part for part in blame.parts]
        chart.show(depth_picture(where, pruned, point))

    def _draw_foot(self) -> None:
        """Draw what is being done or wrong, or what ⏎ would do."""
        foot, text = self.query_one("#blame-foot", Label), self._problem
        if self._trying is not None:
            text = f"… {self._work or 'applying'}"
        elif not text and self._selected is not None:
            key = key_for(self, "blame-try")
            try:
                recipe = self._restored(self._selected)
            except UserError as error:
                recipe = f"{error}"
            text = f"{key} gives {self._selected.name} back and decodes on: {recipe}"
        foot.update(Content(visible(text)))
        foot.set_class(bool(self._problem and self._trying is None), "problem")

    def _read_text(self) -> ReadText:
        """Tokens that the forms have read."""
        moment, header = self._moment, self._moment.header
        lane = moment.lane if self._tokens == "lane" else 0
        tokens = [step.lanes[lane] for step in moment.steps[: moment.cursor]]
        prompt = header.prompt
        return ReadText(prompt.text, len(prompt.tokens), [t.text if t else "" for t in tokens])

    def _missing(self, what: Causes) -> str:
        """What is being done, or is to do, about what is not known."""
        if isinstance(self._session, str):
            return f"{WHAT[what].capitalize()} is not recorded at this step. {self._session}"
        if (self._tokens, what) in self._asked or (what == "parts" and self._asked):
            return f"… {self._work or 'waiting for the session'}"
        key = key_for(self, f"blame-{what}")
        if self._refusal:
            return f"{self._refusal}."
        return f"Cancelled: {key} measures {WHAT[what]}." if self._cancelled else ""
