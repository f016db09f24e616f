"""Main screen on a recorded trace."""

import logging
from pathlib import Path
from typing import ClassVar

from textual.timer import Timer

from ...engine.errors import UserError
from ...engine.trace.file import SUFFIX
from ...engine.trace.printable import visible
from ...engine.trace.trace import Trace
from ..user.state_files import ReplayPosition, read_position, write_position
from ..views.catalog import VIEWS
from .inspector import OVERVIEW, TEXT_FRAMES, Inspector

log = logging.getLogger("prunetui")


class ReplayInspector(Inspector):
    """Inspector of a recorded trace, opened where it was left or with the cursor at its end."""

    can_read = False

    hidden_keys: ClassVar[frozenset[str]] = frozenset(
        {"context", "prompt", "force", "answers", "variants"}
    )

    def __init__(self, trace: Trace, path: Path) -> None:
        super().__init__()
        self._recorded = self.trace = trace
        self._path = path
        self._next: Timer | None = None
        self._last_view = OVERVIEW

    def on_mount(self) -> None:
        try:
            self._return_to(read_position(self._path))
        except UserError as problem:
            self.notify(visible(str(problem)), severity="warning", markup=False)
        self.draw()

    def on_unmount(self) -> None:
        try:
            write_position(self._path, self._cursor, self.lane, self._last_view)
        except UserError as problem:
            log.warning("%s", problem)

    def action_view(self, name: str) -> None:
        super().action_view(name)
        self._last_view = self.chosen_view

    def _return_to(self, position: ReplayPosition | None) -> None:
        """Restore a position; the trace and the views may have changed since."""
        if position is None:
            return
        self._select(position.lane)
        if position.cursor is not None:
            self.move_to(position.cursor)
        if position.view != self.chosen_view and position.view in [name for name, _, _ in VIEWS]:
            self.action_view(position.view)

    @property
    def state(self) -> str:
        return "▶ replay" if self._next else "‖ replay"

    @property
    def recording(self) -> str:
        return self._path.name.removesuffix(SUFFIX)

    @property
    def export_name(self) -> str:
        return self._path.name.removesuffix(SUFFIX)

    def go_on(self) -> None:
        """Do nothing: no step follows the last one."""

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

    def action_force(self, token: int | None = None) -> None:  # noqa: ARG002
        self._refuse()

    def action_variants(self) -> None:
        self._refuse()

    def _refuse(self) -> None:
        self.notify("This is a replay: there is no model to decode with.", markup=False)

    @property
    def at_end(self) -> bool:
        return self.cursor == len(self._recorded.steps) - 1

    def _wait(self) -> None:
        """Set the timer for the next step, as long as it took when it was recorded."""
        seconds = self._recorded.steps[min(self.cursor + 1, len(self._recorded.steps) - 1)].seconds
        self._next = self.set_timer(max(seconds, 1 / TEXT_FRAMES), self._advance)

    def _advance(self) -> None:
        self._next = None
        if not self.at_end:
            self._set_cursor(self.cursor + 1)
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
