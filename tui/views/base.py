"""Base class of the views."""

from typing import ClassVar

from textual.containers import Vertical

from ..moment import Moment


class InspectorView(Vertical):
    """Widget that fills the screen between the status line and the keys while its view is chosen.

    It draws the trace at the cursor and nothing else, so it looks the same live and in a replay.
    """

    NOUN: ClassVar[str]
    """Name in the command palette and in the help."""
    KEYWORDS: ClassVar[str] = ""
    """Words that the command palette finds it by, besides those of its sentence in `VIEWS`."""

    FRAMES = 2.0
    """Frames a second, at most: a large chart costs some 50 ms."""

    @property
    def pending(self) -> bool:
        """Whether a timer will draw what the last `show` left out."""
        return False

    def show(self, moment: Moment) -> None:
        """Draw the moment: called for the chosen view when trace, cursor or lane changed."""
        raise NotImplementedError

    def turn(self) -> None:
        """Switch to the next drawing mode, if the view has several; call `show` after."""
