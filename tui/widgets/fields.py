"""Input fields that show control characters as glyphs, and a tick box that needs no colour."""

from typing import Any, ClassVar
from unicodedata import category

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Checkbox, Input, TextArea

from ...engine.trace.printable import visible


class Glyphs:
    """Glyphs for control characters, and back.

    Joiners and direction marks are part of emoji, Persian and Hebrew, so they must come back.
    """

    def __init__(self, keep: str = "") -> None:
        self._keep = keep
        self._controls: dict[str, str] = {}
        """Control character of each glyph shown."""
        self._last = ("", "")
        """Last text as shown, and as given."""

    def show(self, text: str) -> str:
        """Text with its control characters as glyphs."""
        for character in set(text):
            glyph = visible(character, self._keep)
            # A glyph that is in the text itself would come back as a control character.
            if glyph != character and glyph not in text:
                self._controls[glyph] = character
        self._last = (visible(text, self._keep), text)
        return self._last[0]

    def paste(self, text: str) -> str:
        """Pasted text as glyphs, of which `read` turns back format characters only."""
        return self.show(
            "".join(c if category(c) == "Cf" else visible(c, self._keep) for c in text)
        )

    def read(self, shown: str) -> str:
        """Text whose glyphs are control characters again."""
        if shown == self._last[0]:
            return self._last[1]
        for glyph, control in self._controls.items():
            shown = shown.replace(glyph, control)
        return shown


SELECT_ALL: list[BindingType] = [Binding("ctrl+a", "select_all", show=False)]
"""Textual's own goes to the start of the line, as home does."""


class TextField(Input):
    BINDINGS: ClassVar[list[BindingType]] = SELECT_ALL

    def __init__(self, text: str = "", **options: Any) -> None:
        self._glyphs = Glyphs()
        super().__init__(self._glyphs.show(text), **options)

    @property
    def raw_text(self) -> str:
        """Text with its control characters, for which the field shows glyphs."""
        return self._glyphs.read(self.value)

    def put(self, text: str) -> None:
        """Replace all text."""
        self.value = self._glyphs.show(text)

    def on_paste(self, event: events.Paste) -> None:
        # Before Textual's own handler, which inserts the text as it is.
        event.text = self._glyphs.paste(event.text.strip("\r\n"))


class TextBox(TextArea):
    BINDINGS: ClassVar[list[BindingType]] = SELECT_ALL

    def __init__(self, text: str = "", **options: Any) -> None:
        self._glyphs = Glyphs(keep="\n\t")
        super().__init__(self._glyphs.show(text), **options)

    @property
    def raw_text(self) -> str:
        """Text with its control characters, for which the field shows glyphs."""
        return self._glyphs.read(self.text)

    def put(self, text: str) -> None:
        """Replace all text, as one edit that can be undone."""
        self.replace(self._glyphs.show(text), (0, 0), self.document.end)

    def on_paste(self, event: events.Paste) -> None:
        event.text = self._glyphs.paste(event.text.replace("\r\n", "\n").replace("\r", "\n"))


class Tick(Checkbox):
    """Checkbox that shows its state as `[x]`; Textual's own shows it by colour alone."""

    def render(self) -> Content:
        return Content(f"[{'x' if self.value else ' '}] ") + self.label
