"""The prompt, to be edited and decoded."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Label, TextArea

from ...engine.trace.text import visible


class PromptEditor(ModalScreen[str | None]):
    """Returns the new prompt, or None when it is left as it was."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "decode", "decode", priority=True, id="prompt-decode"),
        Binding("escape", "cancel", "cancel", priority=True, id="prompt-cancel"),
    ]

    def __init__(self, prompt: str) -> None:
        super().__init__()
        self._prompt = prompt

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label("Prompt", classes="dialog-title")
            yield TextArea(visible(self._prompt, keep="\n\t"), show_line_numbers=False)
            yield Label("", classes="dialog-problem")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Decode  ^r", id="decode", variant="primary", compact=True)
                yield Button("Cancel  esc", id="cancel", compact=True)

    @on(Button.Pressed, "#decode")
    def action_decode(self) -> None:
        prompt = self.query_one(TextArea).text
        if prompt.strip():
            self.dismiss(prompt)
        else:
            self.query_one(".dialog-problem", Label).update(
                "The prompt is empty; write something for the lanes to go on from."
            )

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)
