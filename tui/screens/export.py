"""Dialog that exports the trace to a file."""

import itertools
import os
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Input, Label

from ...engine.errors import UserError
from ...engine.files import expanded, is_stream
from ...engine.output_files import new_file, write_all
from ...engine.trace.export.formats import FORMATS
from ...engine.trace.printable import visible
from ...engine.trace.trace import Trace
from ..user.state_files import change_settings, read_settings
from ..widgets.fields import TextField
from ..widgets.format_list import FormatList
from .dialog import Dialog


class ExportDialog(Dialog[None]):
    """Dialog that writes a new file in the format of its suffix; one that exists is refused.

    It proposes a free name in the working directory, and the format that was written last.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="export-cancel"),
    ]
    # Textual declares it without ClassVar.
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-tall")]  # noqa: RUF012

    def __init__(self, trace: Trace, name: str, screenshot: str) -> None:
        """`name` is that of the file, without a suffix; `screenshot` is an SVG."""
        super().__init__()
        self._trace = trace
        self._name = name
        self._formats = {**FORMATS, "svg": lambda _: screenshot}
        self._directory, self._problem = _working_directory()
        self._proposed = ""
        """Path that was proposed last; a user's own is only given another suffix."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label("Export the trace", classes="dialog-title")
            yield FormatList(self._formats, self._last_format())
            yield TextField(select_on_focus=False)
            yield Label(Content(visible(self._problem)), classes="dialog-problem")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Write  ⏎", id="write", variant="primary", compact=True)
                yield Button("Cancel  esc", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one(FormatList).focus()

    def _last_format(self) -> str:
        try:
            last = read_settings().export_format
        except UserError:
            # The user was told when the program started.
            last = None
        return last if last in self._formats else next(iter(self._formats))

    @on(FormatList.OptionHighlighted)
    def _propose(self) -> None:
        """Give the path the suffix of the format, and a free name if it is the one proposed."""
        field, suffix = self.query_one(TextField), self.query_one(FormatList).chosen
        if field.raw_text == self._proposed:
            self._proposed = str(_free_path(self._directory, self._name, suffix))
            field.put(self._proposed)
        else:
            stem, dot, ending = field.raw_text.rpartition(".")
            field.put(f"{stem if dot and ending in self._formats else field.raw_text}.{suffix}")

    @on(FormatList.OptionSelected)
    @on(Button.Pressed, "#write")
    @on(Input.Submitted)
    def _write(self) -> None:
        path = expanded(self.query_one(TextField).raw_text)
        suffix = path.suffix.removeprefix(".")
        convert = self._formats.get(suffix)
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
            return
        self.notify(visible(f"Written: {path}"), markup=False)
        try:
            change_settings(export_format=suffix)
        except UserError as problem:
            self.notify(visible(str(problem)), severity="warning", markup=False)
        self.dismiss()

    def refuse(self, sentence: str) -> None:
        self.query_one(".dialog-problem", Label).update(Content(visible(sentence)))

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss()


def _working_directory() -> tuple[Path, str]:
    """The directory to propose, and a sentence if nothing can be written there."""
    try:
        directory = Path.cwd()
    except OSError:
        return Path.home(), "The working directory is gone; the file would go to your home."
    if os.access(directory, os.W_OK):
        return directory, ""
    return directory, f"Nothing can be written in {directory}; name a file elsewhere."


def _free_path(directory: Path, name: str, suffix: str) -> Path:
    """The first of `name.suffix`, `name-2.suffix`, … that does not exist."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    paths = (directory / f"{stem}.{suffix}" for stem in itertools.chain([name], numbered))
    return next(path for path in paths if not os.path.lexists(path))
