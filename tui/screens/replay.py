"""Main screen on a recorded trace."""

import logging
import shlex
from pathlib import Path
from typing import ClassVar

from ...engine.errors import UserError
from ...engine.trace.blame import find_blame
from ...engine.trace.divergence import first_divergence
from ...engine.trace.file import SUFFIX
from ...engine.trace.printable import visible
from ...engine.trace.trace import Trace
from ..moment import Moment
from ..user.state_files import ReplayPosition, read_position, write_position
from ..views.catalog import VIEWS
from ..widgets.key_line import key_for
from .blame import BlameScreen
from .inspector import OVERVIEW, Inspector

log = logging.getLogger("prunetui")


class ReplayInspector(Inspector):
    """Inspector of a recorded trace, opened where it was left or at the first divergence."""

    can_read = False

    hidden_keys: ClassVar[frozenset[str]] = frozenset(
        {"context", "prompt", "force", "answers", "variants"}
    )

    def __init__(self, trace: Trace, path: Path) -> None:
        super().__init__()
        self._recorded = self.trace = trace
        self._path = path
        self._last_view = OVERVIEW
        self.lane = min(self.lane, len(trace.header.lanes) - 1)

    def on_mount(self) -> None:
        position = None
        try:
            position = read_position(self._path)
        except UserError as problem:
            self.notify(visible(str(problem)), severity="warning", markup=False)
        if position is not None:
            self._return_to(position)
        else:
            self._go_to_divergence()
        self.draw()

    def on_unmount(self) -> None:
        try:
            write_position(self._path, self._cursor, self.lane, self._last_view)
        except UserError as problem:
            log.warning("%s", problem)

    def action_view(self, name: str) -> None:
        super().action_view(name)
        self._last_view = self.chosen_view

    def _go_to_divergence(self) -> None:
        """Go to the first divergence of the first lane that has one; without any, follow the end.

        At the end lanes may have ended, and there is nothing to see.
        """
        for lane in range(1, len(self._recorded.header.lanes)):
            if (step := first_divergence(self._recorded.steps, lane)) is not None:
                self.select(lane)
                self.move_to(step)
                return

    def _return_to(self, position: ReplayPosition) -> None:
        """Restore a position; the trace and the views may have changed since."""
        self.select(position.lane)
        if position.cursor is not None:
            self.move_to(position.cursor)
        if position.view != self.chosen_view and position.view in [name for name, _, _ in VIEWS]:
            self.action_view(position.view)

    @property
    def state(self) -> str:
        return "▶ replay" if self.playing_recorded else "‖ replay"

    @property
    def recording(self) -> str:
        return self._path.name.removesuffix(SUFFIX)

    @property
    def export_name(self) -> str:
        return self._path.name.removesuffix(SUFFIX)

    def go_on(self) -> None:
        """Do nothing: no step follows the last one."""

    def run_to_divergence(self) -> None:
        self.tell(f"{self.no_divergence} from the baseline.")

    def switch(self, branch: int) -> None:
        self._recorded.switch(branch)
        self.draw()

    def action_play(self) -> None:
        if self.at_end:
            self.move_to(0)
        super().action_play()

    def play_on(self) -> None:
        """Stop: no step follows the last one."""

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

    def blame(self, moment: Moment) -> None:
        """Show a recorded blame, of the baseline's tokens first."""
        blames = moment.step.blames if moment.step else []
        of_lane = [blame for blame in blames if blame.lane == moment.lane]
        if of_lane:
            shown = find_blame(of_lane, moment.lane, "baseline") or of_lane[0]
            self.app.push_screen(BlameScreen(moment, shown.tokens, self._refusal))
        else:
            name = moment.header.lanes[moment.lane].name
            self.tell(
                f"No blame of {name} is recorded at step {moment.cursor}: {self._command} loads "
                f"the model, and {key_for(self, 'why')} measures one."
            )

    @property
    def _command(self) -> str:
        return f"prunetui --resume {shlex.quote(str(self._path))}"

    @property
    def _refusal(self) -> str:
        return f"This is a replay: there is no model to decode with; {self._command} loads it."

    def _refuse(self) -> None:
        self.tell(self._refusal)
