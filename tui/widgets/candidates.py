"""Candidates for the next token in the baseline and other lanes, side by side."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events

from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.printable import visible
from ...engine.trace.records import Step
from ..moment import Moment
from .panel import SELECTED, Line, Panel, shorten

CHOSEN = "●"
FORCED = "◆"
"""Mark of a token that the user forced."""
ENTROPY_FROM = 14
"""Height of the panel, in lines, from which it shows the lanes' entropies."""
LANE_CELLS = 20
"""Width that each lane has at least, where there are more than two."""
EIGHTHS = " ▏▎▍▌▋▊▉█"


def quoted(text: str) -> str:
    """Visible text in quotes, so that spaces and an empty text show."""
    return f'"{visible(text)}"'


def horizontal_bar(value: float, cells: int) -> str:
    full, eighths = divmod(round(min(max(value, 0.0), 1.0) * cells * 8), 8)
    return ("█" * full + EIGHTHS[eighths].strip()).ljust(cells)


def probability(value: float | None) -> str:
    """Probability in four cells: `.81`, `1.00`, `<.01`."""
    if value is None:
        return " n/a"
    if 0 < value < 0.005:
        return "<.01"
    return f"{value:.2f}".removeprefix("0").rjust(4)


class CandidatesPanel(Panel):
    """Panel of bars paired by token, in as many lanes as fit: the baseline, the selected one and
    those around it. The tokens that these lanes chose come first."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "candidates--baseline",
        "candidates--variant",
        "candidates--token",
        "candidates--chosen",
    }

    moment: Moment | None = None
    _heads = 0
    """Number of lines above the candidates."""
    _tokens: Sequence[int] = ()
    """Tokens drawn last, one a line."""

    def show(self, moment: Moment) -> None:
        self.moment = moment
        self.redraw()

    async def on_click(self, event: events.Click) -> None:
        if self._tokens:
            row = min(max(0, event.y - self._heads), len(self._tokens) - 1)
            await self.screen.run_action(f"force({self._tokens[row]})")

    def draw(self, width: int, height: int) -> list[Line]:
        moment = self.moment
        step = moment.step_or_preview if moment else None
        if moment is None or step is None:
            self._tokens = ()
            return [self.title(width, "next token")]
        temperature = moment.header.sampling.measured_temperature
        blamed = any(blame.lane == moment.lane for blame in step.blames)
        lines = [
            self.title(
                width,
                f"next token at step {step.step}{', blamed' if blamed else ''}",
                f"p = softmax(z/T) 0–1, T = {temperature:g}",
                f"p 0–1, T = {temperature:g}",
                f"p 0–1, T={temperature:g}",
                "p 0–1",
            )
        ]
        token_cells = min(16, width * 2 // 7)
        lanes = _shown_lanes(moment, (width - token_cells - 2) // LANE_CELLS)
        lane_cells = (width - token_cells - 2) // len(lanes)
        lines.append(self._names(moment, lanes, token_cells, lane_cells))
        if height >= ENTROPY_FROM:
            lines.append(self._entropies(step, lanes, token_cells, lane_cells))
        self._heads = len(lines)
        chosen = moment.step is not None
        candidates = ranked(step, lanes, chosen_first=chosen)[: height - len(lines)]
        self._tokens = [step.candidates.tokens[candidate] for candidate in candidates]
        if not candidates:
            lines.append(
                Line().add(f" every lane's logits are {NOT_NUMBERS}", self.style("panel--quiet"))
            )
        for row, candidate in enumerate(candidates):
            text = quoted(step.candidates.texts[candidate])
            line = Line().add(" " + shorten(text, token_cells), self.style("candidates--token"))
            for column, lane in enumerate(lanes):
                line.pad_to(2 + token_cells + column * lane_cells, self.rich_style)
                self._bar(line, step, lane, candidate, row, lane_cells, chosen)
            lines.append(line)
        return lines

    def _names(self, moment: Moment, lanes: list[int], token_cells: int, lane_cells: int) -> Line:
        line = Line()
        for column, lane in enumerate(lanes):
            line.pad_to(2 + token_cells + column * lane_cells, self.rich_style)
            mark = f"{SELECTED} " if len(lanes) > 2 and lane == moment.lane else ""
            name = shorten(mark + moment.header.lanes[lane].name, lane_cells - 1)
            line.add(name, self.style(_lane_style(lane)))
        return line

    def _entropies(self, step: Step, lanes: list[int], token_cells: int, lane_cells: int) -> Line:
        line = Line().add(" entropy", self.style("panel--quiet"))
        for column, lane in enumerate(lanes):
            line.pad_to(2 + token_cells + column * lane_cells, self.rich_style)
            token = step.lanes[lane]
            if token is not None and token.entropy is not None:
                line.add(f"{token.entropy:.2f} nats", self.style("panel--quiet"))
        return line

    def _bar(
        self,
        line: Line,
        step: Step,
        lane: int,
        candidate: int,
        row: int,
        lane_cells: int,
        chosen: bool,
    ) -> None:
        """Add a lane's bar and figure, with a mark beside the token that is `chosen`."""
        probs, token = step.candidates.probs[lane], step.lanes[lane]
        if probs is None or token is None or token.not_numbers:
            why = NOT_NUMBERS if token else "has ended"
            line.add(why if row == 0 else "", self.style("panel--quiet"))
            return
        bar_cells = max(1, lane_cells - 8)
        value = probs[candidate]
        line.add(horizontal_bar(value or 0.0, bar_cells), self.style(_lane_style(lane)))
        marked = chosen and token.token == step.candidates.tokens[candidate]
        line.add(
            f" {probability(value)}", self.style("candidates--chosen" if marked else "panel--quiet")
        )
        if marked:
            line.add(f" {FORCED if token.forced else CHOSEN}", self.style("candidates--chosen"))


def _shown_lanes(moment: Moment, most: int) -> list[int]:
    """The baseline and the selected lane; if `most` are more than these two, others around it."""
    if most < 3:
        return [0, moment.lane] if moment.lane else [0]
    count = len(moment.header.lanes)
    variants = min(most, count) - 1
    first = min(max(1, moment.lane - variants // 2), count - variants)
    return [0, *range(first, first + variants)]


def _lane_style(lane: int) -> str:
    return "candidates--variant" if lane else "candidates--baseline"


def ranked(step: Step, lanes: list[int], *, chosen_first: bool) -> list[int]:
    """Indices of the step's candidates by highest probability in these lanes; `chosen_first` puts
    those before them that the lanes chose."""
    candidates = step.candidates
    chosen = {
        token.token
        for lane in lanes
        if chosen_first and (token := step.lanes[lane]) and not token.not_numbers
    }
    columns = [probs for lane in lanes if (probs := candidates.probs[lane])]

    def rank(candidate: int) -> tuple[bool, float]:
        highest = max((column[candidate] or 0.0 for column in columns), default=0.0)
        return candidates.tokens[candidate] not in chosen, -highest

    return sorted(range(len(candidates.tokens)), key=rank)
