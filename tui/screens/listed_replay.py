"""Replay that was opened from the list of sessions."""

from typing import ClassVar

from textual.binding import Binding, BindingType

from ..widgets.key_line import Key
from .inspector import OVERVIEW
from .keys import KEYS
from .replay import ReplayInspector

BACK = Key(
    "q",
    "leave",
    "back",
    tooltip="Back to the list of sessions",
    id="replay-leave",
    noun="Back",
    keywords="leave close quit list sessions",
)


class ListedReplay(ReplayInspector):
    """Replay that was opened from the list and leads back to it."""

    keys: ClassVar[list[Key]] = [*(key for key in KEYS if key.id != "quit"), BACK]
    BINDINGS: ClassVar[list[BindingType]] = [
        # Before the key that only leads to the overview.
        Binding("escape", "overview_or_leave", "back", id="replay-overview"),
        *keys,
    ]

    @property
    def state(self) -> str:
        return f"{super().state}, q: back"

    def action_overview_or_leave(self) -> None:
        if self.chosen_view == OVERVIEW:
            self.action_leave()
        else:
            self.action_view(OVERVIEW)

    def action_leave(self) -> None:
        if self.is_current:
            self.dismiss()
