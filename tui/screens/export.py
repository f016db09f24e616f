"""Dialog that exports the trace to a file."""

import re
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label

from ...engine.errors import UserError
from ...engine.files import expanded, is_stream
from ...engine.output_files import new_file, write_all
from ...engine.trace.export.formats import FORMATS
from ...engine.trace.printable import visible
from ...engine.trace.trace import Trace
from ..widgets.fields import TextField

WEB_FONTS = re.compile(r',\s*url\("https://[^"]*"\) format\("\w+"\)')
"""Sources in the style of Textual's screenshots that a browser would load from the network."""


class ExportDialog(ModalScreen[None]):
    """Dialog that writes a new file in the format of its suffix; one that exists is refused."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="export-cancel"),
    ]

    def __init__(self, trace: Trace, path: Path, screenshot: str) -> None:
        """`path` lacks its ending; `screenshot` is the SVG from Textual."""
        super().__init__()
        self._trace = trace
        self._path = path
        self._formats = {**FORMATS, "svg": lambda _: WEB_FONTS.sub("", screenshot)}

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label("Export the trace", classes="dialog-title")
            with Horizontal(classes="dialog-choices"):
                for name in self._formats:
                    yield Button(name, id=name, classes="format", compact=True)
            yield TextField(f"{self._path}.{next(iter(FORMATS))}", select_on_focus=False)
            yield Label("", classes="dialog-problem")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Write  ⏎", id="write", variant="primary", compact=True)
                yield Button("Cancel  esc", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    @on(Button.Pressed, ".format")
    def _change_ending(self, event: Button.Pressed) -> None:
        path = self.query_one(Input)
        stem, dot, ending = path.value.rpartition(".")
        path.value = f"{stem if dot and ending in self._formats else path.value}.{event.button.id}"
        path.focus()

    @on(Button.Pressed, "#write")
    @on(Input.Submitted)
    def _write(self) -> None:
        path = expanded(self.query_one(TextField).raw_text)
        convert = self._formats.get(path.suffix.removeprefix("."))
        if convert is None:
            endings = ", ".join(f".{ending}" for ending in self._formats)
            self.refuse(f"The file's name must end in {endings}.")
            return
        if is_stream(path):
            self.refuse(f"{path} is no file; name a new one.")
            return
        try:
            content = convert(self._trace)
            with new_file(path) as file:
                write_all(file, content.encode() if isinstance(content, str) else content)
        except UserError as error:
            self.refuse(f"{error}.")
        else:
            self.notify(visible(f"Written: {path}"), markup=False)
            self.dismiss()

    def refuse(self, sentence: str) -> None:
        self.query_one(".dialog-problem", Label).update(Content(visible(sentence)))

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss()
