"""Editor of the prompt and the sampling, with the prompt library."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Input, Label, OptionList

from ...engine.errors import UserError
from ...engine.options import TEMPERATURES, is_temperature
from ...engine.trace.printable import visible
from ...engine.trace.records import Sampling
from ..user.prompt_library import (
    BUILT_IN_PROMPTS,
    prompts_directory,
    read_saved_prompt,
    save_prompt,
    saved_prompt_names,
)
from ..widgets.choices import Choices
from ..widgets.fields import TextBox, TextField, Tick
from ..widgets.panel import shorten
from .ask import AskDialog, ConfirmDialog
from .dialog import Dialog

NAME_CELLS = 18
MOST_DIGITS = 15
"""Number of digits that integers and doubles of every language hold."""


@dataclass(frozen=True)
class Decoding:
    """Prompt and sampling; `raw` uses no chat template."""

    prompt: str
    raw: bool
    sampling: Sampling


@dataclass(frozen=True)
class Number:
    """Numeric field of `Sampling`, with the rule for its values."""

    key: str
    label: str
    kind: type[int] | type[float]
    is_valid: Callable[[float], bool]
    requirement: str

    def parse(self, text: str) -> float:
        """Value of the text; raises `UserError` with a sentence if it is not valid."""
        try:
            value = self.kind(text)
        except ValueError:
            # Not valid for any field.
            value = math.nan
        if not self.is_valid(value):
            raise UserError(f"{self.label} is {text!r}; it must be {self.requirement}")
        return value


NUMBERS = (
    Number("temperature", "temperature", float, is_temperature, TEMPERATURES),
    Number("top_k", "top-k", int, lambda k: k >= 0, "a whole number, 0 or more"),
    Number("max_new_tokens", "new tokens", int, lambda n: n >= 1, "a whole number, 1 or more"),
    Number("seed", "seed", int, lambda s: s >= 0, "a whole number, 0 or more"),
    Number("top_p", "top-p", float, lambda p: 0 < p <= 1, "a number above 0 and at most 1"),
)


class PromptEditor(Dialog[Decoding | None]):
    """Dialog that returns the edited prompt and sampling, or None if cancelled."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "decode", "decode", priority=True, id="prompt-decode"),
        Binding("f2", "save", "save", priority=True, id="prompt-save"),
        Binding("escape", "cancel", "cancel", priority=True, id="prompt-cancel"),
    ]
    # Textual declares it without ClassVar.
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-tall")]  # noqa: RUF012

    def __init__(self, decoding: Decoding) -> None:
        super().__init__()
        self._decoding = decoding
        self._fields_at_first: list[object] = []
        self._saved = saved_prompt_names()

    def compose(self) -> ComposeResult:
        decoding = self._decoding
        with Vertical(classes="dialog"):
            yield Label("Prompt and sampling", classes="dialog-title")
            with Horizontal(id="prompt-texts"):
                yield Choices(*self._names(), compact=True, id="library")
                yield TextBox(decoding.prompt, show_line_numbers=False)
            with Grid(id="prompt-numbers"):
                for number in NUMBERS:
                    value = getattr(decoding.sampling, number.key)
                    yield Label(number.label)
                    yield TextField(
                        str(value).removesuffix(".0"),
                        max_length=MOST_DIGITS,
                        select_on_focus=True,
                        id=number.key,
                    )
            with Horizontal(id="prompt-ticks"):
                yield Tick("chat template", not decoding.raw, id="template")
                yield Tick("decode past end tokens", decoding.sampling.ignore_eos, id="ignore_eos")
            yield Label(
                "temperature 0 is greedy; top-k 0 and top-p 1 keep every token",
                classes="dialog-hint",
            )
            yield Label("", classes="dialog-problem")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Save  f2", id="save", compact=True)
                yield Button("Decode  ^r", id="decode", variant="primary", compact=True)
                yield Button("Cancel  esc", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = None
        box = self.query_one(TextBox)
        box.select_all()
        box.focus()
        self._fields_at_first = self._fields()

    def _names(self) -> list[Content | None]:
        """Names in the library: the built-in prompts, a rule, the user's own."""
        built_in = [Content(prompt.name) for prompt in BUILT_IN_PROMPTS]
        saved = [Content(shorten(name, NAME_CELLS)) for name in self._saved]
        return [*built_in, None, *saved] if saved else [*built_in]

    @on(OptionList.OptionSelected)
    def _take(self, event: OptionList.OptionSelected) -> None:
        """Put the prompt into the text box, as an edit that can be undone."""
        index = event.option_index
        try:
            built_in = BUILT_IN_PROMPTS[index] if index < len(BUILT_IN_PROMPTS) else None
            text = (
                built_in.text
                if built_in
                else read_saved_prompt(self._saved[index - len(BUILT_IN_PROMPTS)])
            )
        except UserError as error:
            self._refuse(f"{error}.")
            return
        if built_in:
            self.query_one("#template", Tick).value = not built_in.raw
        self.query_one(TextBox).put(text)
        self._refuse("")

    @work
    async def action_save(self) -> None:
        text = self._text()
        if text is None:
            return
        name = await self.app.push_screen_wait(
            AskDialog(
                "Save the prompt",
                f"A name. It becomes a text file in {prompts_directory()}.",
                lambda name: save_prompt(name, text),
            )
        )
        if name is not None:
            self._saved = saved_prompt_names()
            self.query_one(OptionList).set_options(self._names())

    @on(Button.Pressed, "#decode")
    @on(Input.Submitted)
    def action_decode(self) -> None:
        text = self._text()
        if text is None:
            return
        sampling: dict[str, float | bool] = {}
        for number in NUMBERS:
            field = self.query_one(f"#{number.key}", Input)
            try:
                sampling[number.key] = number.parse(field.value)
            except UserError as error:
                self._refuse(f"{error}.")
                field.focus()
                return
        sampling["ignore_eos"] = self.query_one("#ignore_eos", Tick).value
        raw = not self.query_one("#template", Tick).value
        # A field that the editor lacks stays as it is.
        changed = msgspec.structs.replace(self._decoding.sampling, **sampling)
        self.dismiss(Decoding(text, raw, changed))

    def _fields(self) -> list[object]:
        """What every field holds."""
        inputs = [field.value for field in self.query(Input)]
        ticks = [tick.value for tick in self.query(Tick)]
        return [self.query_one(TextBox).text, *inputs, *ticks]

    def _text(self) -> str | None:
        """Text of the prompt; None, and a sentence on the screen, if it is empty."""
        text = self.query_one(TextBox).raw_text
        if text.strip():
            return text
        self._refuse("The prompt is empty; write something for the lanes to go on from.")
        return None

    def _refuse(self, sentence: str) -> None:
        self.query_one(".dialog-problem", Label).update(Content(visible(sentence)))

    @on(Button.Pressed, "#save")
    def _save(self) -> None:
        self.action_save()

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        """Leave, after a question if there are edits."""
        if self._fields() == self._fields_at_first:
            self.dismiss(None)
        else:
            dialog = ConfirmDialog("Discard the edits?", "The prompt stays as it is.", "Discard")
            self.app.push_screen(dialog, self._leave_if)

    def _leave_if(self, discarded: bool | None) -> None:
        if discarded:
            self.dismiss(None)
