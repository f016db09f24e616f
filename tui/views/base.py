"""What every view is."""

from textual.containers import Vertical

from ..moment import Moment


class InspectorView(Vertical):
    """Fills the screen between the status line and the keys while it is chosen.

    Draws the trace at the cursor and nothing else, so it looks the same live and in a replay.
    """

    FRAMES = 2.0
    """A second, at the most: a large chart costs some 50 ms."""

    @property
    def pending(self) -> bool:
        """Whether a timer will draw what the last `show` left out."""
        return False

    def show(self, moment: Moment) -> None:
        """Called while the view is chosen, whenever the trace, the cursor or the lane changed."""
        raise NotImplementedError

    def turn(self) -> None:
        """To the next way of drawing, in a view that has several; show it after."""
