"""Base classes of the screens that lie on the main screen until they are left."""

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen, Screen, ScreenResultType


class UpperScreen(Screen[ScreenResultType]):
    """Screen that can be left once, with every screen that lies on top of it.

    Textual's own `dismiss` takes off whichever screen is topmost, as often as it is called: two
    keys in a burst would close the main screen too, and the program with it.
    """

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        if self not in self.app.screen_stack:
            return AwaitComplete.nothing()
        while self.app.screen is not self:
            self.app.screen.dismiss()
        return super().dismiss(result)


class Dialog(ModalScreen[ScreenResultType], UpperScreen[ScreenResultType]):
    """Screen that shows the main screen around it."""
