"""Textual's fields, with controls made visible, and a state that is a shape."""

from typing import Any
from unicodedata import category

from textual import events
from textual.content import Content
from textual.widgets import Checkbox, Input, TextArea

from ...engine.trace.printable import visible


class Glyphs:
    """Text with its controls as glyphs, and back: joiners and marks of direction are a part of
    emoji, Persian and Hebrew."""

    def __init__(self, keep: str = "") -> None:
        self._keep = keep
        self._controls: dict[str, str] = {}
        """What a glyph stands for."""
        self._whole = ("", "")
        """A text as it was shown, and itself."""

    def show(self, text: str) -> str:
        for character in set(text):
            glyph = visible(character, self._keep)
            # A glyph that the text itself has would come back as another.
            if glyph != character and glyph not in text:
                self._controls[glyph] = character
        self._whole = (visible(text, self._keep), text)
        return self._whole[0]

    def paste(self, text: str) -> str:
        """Escape sequences, which nobody means, stay glyphs."""
        return self.show(
            "".join(c if category(c) == "Cf" else visible(c, self._keep) for c in text)
        )

    def read(self, shown: str) -> str:
        if shown == self._whole[0]:
            return self._whole[1]
        for glyph, control in self._controls.items():
            shown = shown.replace(glyph, control)
        return shown


class TextField(Input):
    def __init__(self, text: str = "", **options: Any) -> None:
        self._glyphs = Glyphs()
        super().__init__(self._glyphs.show(text), **options)

    @property
    def meant(self) -> str:
        return self._glyphs.read(self.value)

    def on_paste(self, event: events.Paste) -> None:
        # Before Textual's own handler, which inserts the text as it is.
        event.text = self._glyphs.paste(event.text.strip("\r\n"))


class TextBox(TextArea):
    def __init__(self, text: str = "", **options: Any) -> None:
        self._glyphs = Glyphs(keep="\n\t")
        super().__init__(self._glyphs.show(text), **options)

    @property
    def meant(self) -> str:
        return self._glyphs.read(self.text)

    def put(self, text: str) -> None:
        """In the place of all that is there, as one edit that can be undone."""
        self.replace(self._glyphs.show(text), (0, 0), self.document.end)

    def on_paste(self, event: events.Paste) -> None:
        event.text = self._glyphs.paste(event.text.replace("\r\n", "\n").replace("\r", "\n"))


class Tick(Checkbox):
    """Textual's own shows its state by colour alone."""

    def render(self) -> Content:
        return Content(f"[{'x' if self.value else ' '}] ") + self.label
