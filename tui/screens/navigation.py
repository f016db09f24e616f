"""Screen that moves over a trace: step by step, to what is sought, and playing."""

from textual import work
from textual.screen import Screen
from textual.timer import Timer

from ...engine.errors import UserError
from ...engine.trace.analysis.breakpoints import parse_breakpoint
from ...engine.trace.analysis.seek import Matches, Sought, text_search
from ...engine.trace.divergence import first_divergence
from ...engine.trace.printable import visible
from ...engine.trace.records import Header, Step
from ...engine.trace.trace import Trace
from ..moment import Moment
from ..widgets.key_line import key_for
from .ask import AskDialog
from .seeking import DIFFERS, Seeking

TEXT_FRAMES = 15
"""Frames of text a second, at most."""


class Navigator(Screen[None]):
    """Screen with a cursor on `trace`; it follows the newest step until it is moved."""

    AUTO_FOCUS = ""

    def __init__(self) -> None:
        super().__init__()
        self.trace: Trace | None = None
        self.lane = 1
        self.seeking = Seeking()
        self._cursor: int | None = None
        """Index of the step under the cursor; None follows the newest."""
        self._sought_step: int | None = None
        """Step that the cursor is on if what is sought led it there."""
        self._timer: Timer | None = None
        """Timer of the next step while recorded steps are played."""
        self._told_of: Header | None = None
        """Header whose lack of local numbers the user was told of."""

    # -- for subclasses -----------------------------------------------------------------------

    def draw(self, *, by_key: bool = False) -> None:
        """Request a frame of the trace; `by_key`: sooner, as the user waits for it."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Decode a step, if there can be one: → at the newest step."""
        raise NotImplementedError

    def play_on(self) -> None:
        """Decode on, if there can be steps: playing has come to the newest."""
        raise NotImplementedError

    def run_to_divergence(self) -> None:
        """Decode to the first divergent step: x where none is recorded."""
        raise NotImplementedError

    def tell(self, sentence: str) -> None:
        self.notify(visible(sentence), markup=False)

    # -- the cursor ---------------------------------------------------------------------------

    @property
    def cursor(self) -> int:
        return self.cursor_in(self.trace.steps) if self.trace else -1

    def cursor_in(self, steps: list[Step]) -> int:
        last = len(steps) - 1
        return last if self._cursor is None else min(self._cursor, last)

    def move_to(self, step: int) -> None:
        """Move the cursor to a step, limited to those there are; at the newest it follows."""
        self._set_cursor(step)
        self.draw(by_key=True)

    def _set_cursor(self, step: int) -> None:
        self._sought_step = None
        if self.trace is not None:
            last = len(self.trace.steps) - 1
            self._cursor = None if step >= last else max(0, step)

    def follow(self) -> None:
        """Follow the newest step, and play no recorded ones any more."""
        self.stop_playing()
        self._sought_step = self._cursor = None

    @property
    def at_end(self) -> bool:
        return self.trace is None or self.cursor == len(self.trace.steps) - 1

    def action_move(self, steps: int) -> None:
        if self.trace is None:
            return
        if steps == 1 and self.at_end:
            self.follow()
            self.go_on()
        else:
            self.move_to(self.cursor + steps)

    def action_first(self) -> None:
        self.move_to(0)

    def action_last(self) -> None:
        if self.trace is not None:
            self.move_to(len(self.trace.steps) - 1)

    @work
    async def action_go(self) -> None:
        if self.trace is None or not self.trace.steps:
            return
        last = len(self.trace.steps) - 1

        def parse(text: str) -> int:
            if not text.strip().isdecimal() or len(text) > len(str(last)) + 8 or int(text) > last:
                raise UserError(f"{text.strip()!r} is no step; steps are 0 to {last}")
            return int(text)

        step = await self.app.push_screen_wait(
            AskDialog("Go to a step", f"0 to {last}", parse, str(self.cursor))
        )
        if step is not None:
            self.move_to(step)

    # -- the lane -----------------------------------------------------------------------------

    def action_lane(self, by: int) -> None:
        self.select(self.lane + by)

    def select(self, lane: int) -> None:
        if self.trace is not None:
            self.lane = min(max(lane, 0), len(self.trace.header.lanes) - 1)
            self._sought_step = None
            self.draw(by_key=True)

    def compared_lanes(self) -> list[int]:
        """The selected lane, or with the baseline selected every variant."""
        lanes = len(self.trace.header.lanes) if self.trace else 0
        return [self.lane] if self.lane else [*range(1, lanes)]

    # -- playing ------------------------------------------------------------------------------

    @property
    def playing_recorded(self) -> bool:
        """Whether the cursor is being led through recorded steps."""
        return self._timer is not None

    def action_play(self) -> None:
        if self.playing_recorded:
            self.stop_playing()
        else:
            self._play()
        self.draw(by_key=True)

    def stop_playing(self) -> None:
        """Play no recorded steps any more."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def tell_stopped(self, why: str) -> None:
        self.tell(f"Stopped: {why}.")

    def _play(self) -> None:
        """Wait for the next recorded step as long as it took; at the newest, decode on."""
        steps = self.trace.steps if self.trace else []
        if (following := self.cursor_in(steps) + 1) < len(steps):
            seconds = max(steps[following].seconds, 1 / TEXT_FRAMES)
            self._timer = self.set_timer(seconds, self._advance)
        else:
            self.play_on()

    def _advance(self) -> None:
        self._timer = None
        steps = self.trace.steps if self.trace else []
        why, stop = "", self.seeking.breakpoint
        if not self.at_end:
            self._set_cursor(self.cursor + 1)
            why = stop.hit(steps, self.cursor_in(steps)) if stop else ""
        if why:
            self.tell_stopped(why)
        else:
            self._play()
        self.draw()

    # -- what is sought -----------------------------------------------------------------------

    def action_run_on(self) -> None:
        if self.trace is None:
            return
        self.stop_playing()
        steps = self.trace.steps
        per_lane = [first_divergence(steps, lane) for lane in self.compared_lanes()]
        divergences = [step for step in per_lane if step is not None]
        if divergences:
            self.move_to(min(divergences))
        else:
            self.run_to_divergence()

    @property
    def no_divergence(self) -> str:
        """Clause that there is no divergence among the recorded steps."""
        name = self.trace.header.lanes[self.lane].name if self.trace and self.lane else ""
        return f"{name} does not differ" if name else "No variant differs"

    def action_seek(self, by: int) -> None:
        if self.trace is None:
            return
        header, steps = self.trace.header, self.trace.steps
        sought = self.seeking.sought(header, self.lane)
        matches = self.seeking.matches(steps, sought)
        cursor = self.cursor_in(steps)
        step = matches.after(cursor) if by > 0 else matches.before(cursor)
        sentences: list[str] = []
        if step is not None:
            self._come_to(step, sought, matches)
        elif matches.steps:
            count, last = len(matches.steps), matches.steps[-1 if by > 0 else 0]
            side, end = ("later", "last") if by > 0 else ("earlier", "first")
            sentences.append(
                f"No {side} step where {sought.clause}: {count} in all, the {end} at step {last}."
            )
        else:
            sentences.append(f"No step where {sought.clause}.")
        if header.context == "free" and self.seeking.is_default and self._told_of is not header:
            self._told_of = header
            sentences.append(
                f"Context free has no local numbers: {key_for(self, 'next')} goes to tokens that "
                f"differ ({DIFFERS})."
            )
        if sentences:
            self.tell(" ".join(sentences))

    def _go_to_first_match(self) -> None:
        """Go to the first match from the cursor on; without one, back to the last."""
        if self.trace is None:
            return
        sought = self.seeking.sought(self.trace.header, self.lane)
        matches = self.seeking.matches(self.trace.steps, sought)
        step = matches.after(self.cursor - 1)
        if step is None and (step := matches.before(self.cursor)) is not None:
            self.tell(f"No later step where {sought.clause}: this is the last.")
        if step is not None:
            self._come_to(step, sought, matches)

    def _come_to(self, step: int, sought: Sought, matches: Matches) -> None:
        if sought.lane is None:
            self.lane = matches.lane_at(step, self.lane)
        self._set_cursor(step)
        self._sought_step = step
        self.draw(by_key=True)

    def sought_label(self, moment: Moment) -> str:
        """What is sought, for the status line; the default only where it led the cursor."""
        shown = not self.seeking.is_default or moment.cursor == self._sought_step
        return self.seeking.label(moment) if shown else ""

    @work
    async def action_search(self) -> None:
        if (trace := self.trace) is None:
            return
        header = trace.header

        def parse(text: str) -> tuple[str]:
            if text and not Matches(text_search(text, header)).take(trace.steps).steps:
                raise UserError(f"no lane's text has {visible(text)!r}")
            return (text,)

        answer = await self.app.push_screen_wait(
            AskDialog(
                "Search the texts",
                "In all lanes. A capital letter looks for capitals. Empty: no search.",
                parse,
                self.seeking.query,
            )
        )
        if answer is None:
            return
        (query,) = answer
        self.seeking.search(query)
        if query:
            self._go_to_first_match()
        self.draw()

    @work
    async def action_breakpoint(self) -> None:
        if self.trace is None:
            return
        header = self.trace.header
        following, previous = key_for(self, "next"), key_for(self, "previous")
        stop = self.seeking.breakpoint
        answer = await self.app.push_screen_wait(
            AskDialog(
                "Stop playing when",
                "kl > 5    lane 2 cos_p < 0.5    local.kl > 1    entropy < 0.1    "
                f"lane 1 collapses    differs    {following} and {previous} go to where it holds. "
                "Empty: never stop.",
                lambda text: (parse_breakpoint(text, header) if text.strip() else None,),
                stop.text if stop else "",
            )
        )
        if answer is not None:
            (condition,) = answer
            self.seeking.stop_at(condition)
            self.draw()
