"""Progress of loading as text with figures: a spinner sends 60 KB a second."""

from collections.abc import Callable
from typing import ClassVar

from rich.cells import cell_len

from ...engine.errors import OptionError, PromptError, UserError
from ..session_thread import Stage
from .key_line import key_for
from .panel import Line, Panel, shorten
from .wrapping import wrap

Remedies = tuple[tuple[str, str], ...]
"""Binding ids that help with a problem, and what they do."""


def remedies_of(error: UserError) -> Remedies:
    match error:
        case OptionError():
            return (("quit", "quits, to type the command with another value"),)
        case PromptError():
            return (("prompt", "edits the prompt"), ("quit", "quits"))
        case _:
            return (("restart", "tries again"), ("quit", "quits"))


class LoadingPanel(Panel):
    """Panel of the loading stages with their times, and of the problem if loading failed."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"loading--done", "loading--now", "loading--problem"}

    problem = ""
    _remedies: Remedies = ()

    def __init__(
        self,
        name: str,
        stages: Callable[[], list[Stage]],
        note: str = "",
        remedies: Callable[[UserError], Remedies] = remedies_of,
    ) -> None:
        """`note` is a sentence for the last lines."""
        super().__init__()
        self._find_remedies = remedies
        self._name = name
        self._stages = stages
        self._note = note

    def on_mount(self) -> None:
        self.set_interval(1 / 4, self.redraw)

    def fail(self, error: UserError) -> None:
        """Show why loading failed, and the keys that help with it."""
        self.problem = str(error)
        self._remedies = self._find_remedies(error)
        self.redraw()

    def begin_again(self) -> None:
        self.problem = ""
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        note = self._wrap(self._note, width, "loading--now") if self._note else []
        height -= len(note)
        stages = self._stages()[-(height - 3) :]
        cells = max([20, *(cell_len(stage.text) for stage in stages)])
        lines = [self.title(width, f"opening {self._name}"), Line()]
        for stage in stages:
            done = stage.ended is not None
            style = self.style("loading--done" if done else "loading--now")
            share = "" if done or stage.fraction is None else f"{stage.fraction:4.0%}"
            line = Line().add(f"  {'✓' if done else '…'} {shorten(stage.text, width - 24)}", style)
            line.pad_to(min(cells, width - 24) + 6, self.rich_style)
            line.add(f"{share:>5} {stage.seconds:6.1f} s", self.style("panel--quiet"))
            lines.append(line)
        if self.problem:
            lines += [Line(), *self._wrap(self.problem, width, "loading--problem")]
            hint = "".join(f"  {key_for(self, key)} {what} " for key, what in self._remedies)
            lines += [Line(), Line().add(hint, self.style("panel--quiet"))]
        empty = [Line() for _ in range(height - len(lines))]
        return [*lines[:height], *empty, *note]

    def _wrap(self, sentence: str, width: int, style: str) -> list[Line]:
        return [Line().add(f"  {text}", self.style(style)) for text in wrap(sentence, width - 4)]
