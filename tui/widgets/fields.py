"""Textual's fields, with what is pasted made visible, and a state that is a shape."""

from textual import events
from textual.content import Content
from textual.widgets import Checkbox, Input, TextArea

from ...engine.trace.text import visible


class TextField(Input):
    def on_paste(self, event: events.Paste) -> None:
        # Before Textual's own handler, which inserts the text as it is.
        event.text = visible(event.text.strip("\r\n"))


class TextBox(TextArea):
    def on_paste(self, event: events.Paste) -> None:
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        event.text = visible(text, keep="\n\t")


class Tick(Checkbox):
    """Textual's own shows its state by colour alone."""

    def render(self) -> Content:
        return Content(f"[{'x' if self.value else ' '}] ") + self.label
