"""Comparison of two lanes' texts by character."""

from difflib import SequenceMatcher
from typing import ClassVar

from ...engine.trace.printable import visible
from ...engine.trace.records import Step
from ..moment import Moment
from .panel import Line, Panel, shorten
from .wrapping import Wrapped

STEPS = 200
"""Number of steps compared, up to the cursor; the time grows with its square."""

Run = tuple[str, bool]
"""Characters, and whether the other text has them too."""


def compared(baseline: str, variant: str) -> tuple[list[Run], list[Run]]:
    """Runs of both texts; those in both are equal and in the same order."""
    runs: tuple[list[Run], list[Run]] = [], []
    matcher = SequenceMatcher(None, baseline, variant, autojunk=False)
    for kind, *bounds in matcher.get_opcodes():
        first, last, variant_first, variant_last = bounds
        texts = baseline[first:last], variant[variant_first:variant_last]
        for text, text_runs in zip(texts, runs, strict=True):
            if text:
                text_runs.append((text, kind == "equal"))
    return runs


class DiffPanel(Panel):
    """Panel of the ends of the baseline's text and of the selected lane's, one above the other."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"diff--name", "diff--same", "diff--other"}

    moment: Moment | None = None

    def show(self, moment: Moment) -> None:
        self.moment = moment
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        moment = self.moment
        if moment is None or moment.step is None or moment.lane == 0:
            why = "The baseline does not differ from itself: ↓ selects a variant."
            quiet = self.style("panel--quiet")
            return [self.title(width, "characters"), Line().add(why, quiet)]
        first = max(0, moment.cursor - STEPS + 1)
        steps = moment.steps[first : moment.cursor + 1]
        texts = compared(_text(steps, 0), _text(steps, moment.lane))
        count = sum(len(text) for text, same in texts[1] if not same)
        lines = [
            self.title(
                width,
                f"characters, steps {first} to {moment.cursor}",
                f"{count} not in the baseline's text   underlined: not in the other",
                "underlined: not in the other",
            )
        ]
        rows = (height - 4) // 2
        for lane, runs in ((0, texts[0]), (moment.lane, texts[1])):
            name = shorten(moment.header.lanes[lane].name, width)
            lines.append(Line().add(name, self.style("diff--name")))
            lines += [*self._block(runs, width)[-rows:], Line()]
        return lines

    def _block(self, runs: list[Run], width: int) -> list[Line]:
        wrapped = Wrapped(width)
        for number, (text, _) in enumerate(runs):
            wrapped.append(number, text)
        lines = []
        for pieces in wrapped.lines:
            line = Line()
            for piece in pieces:
                _, same = runs[piece.last]
                line.add(piece.text, self.style("diff--same" if same else "diff--other"))
            lines.append(line)
        return lines


def _text(steps: list[Step], lane: int) -> str:
    tokens = (step.lanes[lane] for step in steps)
    return "".join(visible(token.text) for token in tokens if token)
