"""The main screen on a recorded trace."""

from pathlib import Path
from typing import ClassVar

from textual.timer import Timer

from ...engine.trace.log import SUFFIX
from ...engine.trace.trace import Trace
from .inspector import TEXT_FRAMES, Inspector


class ReplayInspector(Inspector):
    """Opens with the whole trace on the screen and the cursor at its end."""

    hidden_keys: ClassVar[frozenset[str]] = frozenset({"context", "prompt", "force", "answers"})

    def __init__(self, trace: Trace, path: Path) -> None:
        super().__init__()
        self._recorded = self.trace = trace
        self._path = path
        self._next: Timer | None = None

    def on_mount(self) -> None:
        self.draw()

    @property
    def state(self) -> str:
        return "▶ replay" if self._next else "‖ replay"

    @property
    def recording(self) -> str:
        return self._path.name.removesuffix(SUFFIX)

    def export_to(self) -> Path:
        return self._path.with_name(self._path.name.removesuffix(SUFFIX))

    def go_on(self) -> None:
        """There is nothing behind the last step."""

    def run_to_divergence(self) -> None:
        self.notify("No step after this one differs.", markup=False)

    def switch(self, branch: int) -> None:
        self._recorded.switch(branch)
        self.draw()

    def action_play(self) -> None:
        if self._next:
            self._pause()
        elif self._recorded.steps:
            if self.at_end:
                self.move_to(0)
            self._wait()
        self.draw()

    def action_restart(self) -> None:
        self.move_to(0)

    def action_toggle_context(self) -> None:
        self._refuse()

    def action_prompt(self) -> None:
        self._refuse()

    def action_answers(self) -> None:
        self._refuse()

    def action_force(self) -> None:
        self._refuse()

    def _refuse(self) -> None:
        self.notify("This is a replay: there is no model to decode with.", markup=False)

    @property
    def at_end(self) -> bool:
        return self.cursor == len(self._recorded.steps) - 1

    def _wait(self) -> None:
        """Until the next step's turn, as long as it took when it was recorded."""
        seconds = self._recorded.steps[min(self.cursor + 1, len(self._recorded.steps) - 1)].seconds
        self._next = self.set_timer(max(seconds, 1 / TEXT_FRAMES), self._advance)

    def _advance(self) -> None:
        self._next = None
        if not self.at_end:
            self.move_to(self.cursor + 1)
            seen = self._recorded.steps[: self.cursor + 1]
            if self.breakpoint and (why := self.breakpoint.hit(seen)):
                self.tell_stopped(why)
            else:
                self._wait()
        self.draw()

    def _pause(self) -> None:
        if self._next:
            self._next.stop()
            self._next = None
