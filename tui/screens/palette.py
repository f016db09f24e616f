"""Command palette: commands found by their nouns, keywords and sentences."""

import re
from collections.abc import Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Label, OptionList

from ...engine.trace.printable import visible
from ..widgets.choices import Choices
from ..widgets.fields import TextField
from ..widgets.key_line import Key
from .dialog import Dialog
from .keys import ALL_VIEWS

THEME = Key(
    "",
    "app.themes",
    tooltip="Change the colours",
    noun="Theme",
    keywords="colors dark light contrast mono ansi appearance",
)

WORD = re.compile(r"[^\s,;:()]+")

NONE_FOUND = "No command has these words."


class Palette(Dialog[Key | None]):
    """Dialog that returns a command.

    What is typed is matched at once: ⏎ in the same burst runs what the words before it find, which
    Textual's own palette, with its searches in the background, does not.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="palette-cancel"),
        Binding("up", "move('cursor_up')", "up", id="palette-up"),
        Binding("down", "move('cursor_down')", "down", id="palette-down"),
        Binding("pageup", "move('page_up')", "page up", id="palette-page-up"),
        Binding("pagedown", "move('page_down')", "page down", id="palette-page-down"),
    ]

    def __init__(self, title: str, commands: Sequence[Key]) -> None:
        super().__init__()
        self._title = title
        self._commands = commands
        self._found = commands

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._title, classes="dialog-title")
            yield TextField()
            yield Choices(*self._lines(), compact=True)
            yield Label(NONE_FOUND, classes="dialog-hint")

    def on_mount(self) -> None:
        self.query_one(Choices).can_focus = False
        self._find("")

    @on(Input.Changed)
    def _read(self, event: Input.Changed) -> None:
        self._find(event.value)

    def _find(self, query: str) -> None:
        self._found = find(self._commands, query)
        choices = self.query_one(Choices)
        choices.set_options(self._lines())
        choices.highlighted = 0 if self._found else None
        choices.display = bool(self._found)
        self.query_one(".dialog-hint").display = not self._found

    def _lines(self) -> list[Content]:
        """Noun, key and sentence of each command that is found."""
        keys = [self._key(command) for command in self._found]
        nouns = max((len(command.noun) for command in self._found), default=0)
        cells = max((len(key) for key in keys), default=0)
        return [
            Content.assemble(
                (visible(command.noun).ljust(nouns + 2), "bold"),
                f"{visible(key).ljust(cells + 2)}{visible(command.tooltip)}",
            )
            for command, key in zip(self._found, keys, strict=True)
        ]

    def _key(self, command: Key) -> str:
        if not command.key or command.key_display == ALL_VIEWS:
            return command.key
        return self.app.get_key_display(command)

    def action_move(self, how: str) -> None:
        getattr(self.query_one(Choices), f"action_{how}")()

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def _run(self) -> None:
        row = self.query_one(Choices).highlighted
        if row is not None:
            self.dismiss(self._found[row])

    def on_click(self, event: events.Click) -> None:
        if self.get_widget_at(event.screen_x, event.screen_y)[0] is self:
            self.dismiss(None)

    def action_cancel(self) -> None:
        self.dismiss(None)


def find(commands: Sequence[Key], query: str) -> list[Key]:
    """Commands that the query finds, the best first; all of them for one without words."""
    if not words_of(query):
        return [*commands]
    scores = [(score_of(command, query), command) for command in commands]
    best_first = sorted(scores, key=lambda scored: -scored[0])
    return [command for score, command in best_first if score]


def score_of(key: Key, query: str) -> int:
    """Rank of a command among those that a query finds; 0 if it lacks one of the query's words.

    A noun counts more than a keyword, and that more than a word of the sentence; a whole word more
    than the beginning of one, and that more than letters inside one.
    """
    noun, *more_nouns = words_of(key.noun)
    fields = [[noun], more_nouns, words_of(key.keywords), words_of(key.tooltip)]
    scores = [_score_of_word(fields, word) for word in words_of(query)]
    return sum(scores) if all(scores) else 0


def words_of(text: str) -> list[str]:
    return [word.lower().strip(".") for word in WORD.findall(text)]


def _score_of_word(fields: Sequence[Sequence[str]], query: str) -> int:
    tests = (str.__eq__, str.startswith, str.__contains__)
    ranks = [
        (len(tests) - strictness) * 10 + len(fields) - place
        for place, words in enumerate(fields)
        for strictness, test in enumerate(tests)
        if any(test(word, query) for word in words)
    ]
    return max(ranks, default=0)
