"""Dialogs that ask for one line of text, or for a yes."""

from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Input, Label

from ...engine.errors import UserError
from ...engine.trace.printable import visible
from ..widgets.fields import TextField
from .dialog import Dialog

Answer = TypeVar("Answer")


class AskDialog(Dialog[Answer | None], Generic[Answer]):
    """Dialog that returns the parsed text, or None; a text that `parse` refuses can be edited."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="ask-cancel"),
    ]

    def __init__(
        self, title: str, hint: str, parse: Callable[[str], Answer], text: str = ""
    ) -> None:
        """`parse` raises `UserError` with a sentence on a text that it refuses."""
        super().__init__()
        self._title = title
        self._hint = hint
        self._parse = parse
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(Content(visible(self._title)), classes="dialog-title")
            yield TextField(self._text)
            yield Label(Content(visible(self._hint)), classes="dialog-hint")
            yield Label("", classes="dialog-problem")
            with Horizontal(classes="dialog-buttons"):
                yield Button("OK  ⏎", id="ok", variant="primary", compact=True)
                yield Button("Cancel  esc", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    @on(Button.Pressed, "#ok")
    @on(Input.Submitted)
    def _answer(self) -> None:
        try:
            answer = self._parse(self.query_one(TextField).raw_text)
        except UserError as error:
            self.query_one(".dialog-problem", Label).update(Content(visible(f"{error}.")))
        else:
            self.dismiss(answer)

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)


class ConfirmDialog(Dialog[bool]):
    """Dialog that returns whether to do what its title asks."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes", id="confirm-yes"),
        Binding("n,escape", "answer(False)", "cancel", id="confirm-cancel"),
    ]

    def __init__(self, title: str, text: str, yes: str) -> None:
        """`yes` is a verb."""
        super().__init__()
        self._title = title
        self._text = text
        self._yes = yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(Content(visible(self._title)), classes="dialog-title")
            yield Label(Content(visible(self._text)), classes="dialog-hint")
            with Horizontal(classes="dialog-buttons"):
                yield Button(f"{self._yes}  y", id="yes", variant="primary", compact=True)
                yield Button("Cancel  esc", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one("#cancel").focus()

    @on(Button.Pressed)
    def _press(self, event: Button.Pressed) -> None:
        self.action_answer(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        # In a burst of keys the next may come before the screen below.
        if self.is_current:
            self.dismiss(yes)
