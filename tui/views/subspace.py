"""View 4: drift among a few answers, beside that of the whole vocabulary."""

from typing import ClassVar

from textual import events
from textual.app import ComposeResult

from ...engine.trace.analysis.subspace import Choice, choices, kl_among, subspace_drift
from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.figures import cosine, nats
from ...engine.trace.records import Drift, Step
from ..history_memo import HistoryMemo
from ..moment import Moment
from ..widgets.candidates import CHOSEN, horizontal_bar, probability, quoted
from ..widgets.chart import Chart, ChartLine, Picture
from ..widgets.panel import Clicked, Line, Panel, shorten
from .base import InspectorView

LABEL_CELLS = 14
LEAST_COLUMN = 16
MOST_COLUMN = 26
DRIFT_LABELS = (
    "answer",
    "KL among",
    "KL of all",
    "cos p among",
    "cos p of all",
    "cos z among",
    "cos z of all",
)
NO_ANSWERS = "No answers were recorded: --answers A,B,C,D, or a while decoding, names some."

Compared = tuple[Choice | None, Choice | None, Drift | None]
"""Choices of the baseline and of a variant, and the variant's drift in the whole vocabulary."""


class SubspaceView(InspectorView):
    NOUN = "Subspace view"
    KEYWORDS = "multiple-choice mmlu abcd vocabulary"

    FRAMES = 2.0

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._picture = HistoryMemo[Picture]()

    def compose(self) -> ComposeResult:
        yield SubspacePanel()
        yield Chart(id="subspace-kl")

    def show(self, moment: Moment) -> None:
        self.query_one(SubspacePanel).show(moment)
        picture = self._picture.computed(
            moment.steps, moment.lane, lambda steps: _picture(steps, moment.lane)
        )
        cursor = moment.cursor if moment.cursor >= 0 else None
        self.query_one("#subspace-kl", Chart).show(picture, cursor)


def _picture(steps: list[Step], lane: int) -> Picture:
    whole: list[float | None] = []
    among: list[float | None] = []
    numbers = []
    for step in steps if lane else []:
        baseline, variant, drift = choices(step, lane)
        if baseline is not None and variant is not None and drift is not None:
            numbers.append(step.step)
            whole.append(drift.kl)
            among.append(kl_among(baseline, variant))
    return Picture(
        [
            ChartLine(numbers, whole, "space-kl"),
            ChartLine(numbers, among, "foreground", CHOSEN),
        ],
        f"KL(p‖q), nats, log scale: whole vocabulary ──, among the answers {CHOSEN}",
        steps=len(steps),
    )


class SubspacePanel(Panel):
    """Table of answers by lane at the cursor's step, and both drifts of each variant."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "subspace--baseline",
        "subspace--variant",
        "subspace--value",
        "subspace--changed",
    }

    moment: Moment | None = None

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._lanes: list[int] = []
        """Lanes that have a column, `_cells` wide."""
        self._cells = 1

    def show(self, moment: Moment) -> None:
        self.moment = moment
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        column = (event.x - LABEL_CELLS) // self._cells
        if event.y > 0 and 0 <= column < len(self._lanes):
            self.post_message(Clicked(lane=self._lanes[column]))

    def draw(self, width: int, height: int) -> list[Line]:  # noqa: ARG002
        moment = self.moment
        if moment is None or moment.step is None:
            return [self.title(width, "answers")]
        answers = moment.header.answers
        if answers is None or moment.step.answers is None:
            return [
                self.title(width, "answers"),
                Line().add(NO_ANSWERS, self.style("panel--quiet")),
            ]
        lanes = self._lay_out(moment, width)
        texts = "the baseline's tokens" if moment.header.context != "free" else "own tokens"
        names = Line().pad_to(LABEL_CELLS, self.rich_style)
        for lane in lanes:
            name = ("▸" if lane == moment.lane else " ") + moment.header.lanes[lane].name
            names.add(
                shorten(name, self._cells - 1).ljust(self._cells), self.style(_lane_style(lane))
            )
        compared = [choices(moment.step, max(lane, 1)) for lane in lanes]
        return [
            self.title(
                width,
                f"answers at step {moment.cursor}, on {texts}",
                "p̂: among the answers, bars 0–1; log p: in the whole vocabulary, nats",
                "p̂ among them, 0–1; log p of all, nats",
                "p̂ 0–1; log p, nats",
            ),
            names,
            *self._answers(moment.step, answers.texts, compared),
            *self._drifts(compared),
        ]

    def _lay_out(self, moment: Moment, width: int) -> list[int]:
        """Choose the lanes that have a column, and the width of the columns."""
        columns = max(1, (width - LABEL_CELLS) // LEAST_COLUMN)
        first = max(1, moment.lane - columns + 2)
        self._lanes = [0, *range(first, len(moment.header.lanes))][:columns]
        self._cells = min(MOST_COLUMN, (width - LABEL_CELLS) // len(self._lanes))
        return self._lanes

    def _answers(self, step: Step, texts: list[str], compared: list[Compared]) -> list[Line]:
        """A line per answer: its probability among the answers, and log p, in each lane."""
        quiet, value = self.style("panel--quiet"), self.style("subspace--value")
        lines: list[Line] = []
        for answer, text in enumerate(texts):
            line = Line().add(f"  {shorten(quoted(text), LABEL_CELLS - 3)}", value)
            for column, lane in enumerate(self._lanes):
                line.pad_to(LABEL_CELLS + column * self._cells, self.rich_style)
                baseline, variant, _ = compared[column]
                choice = variant if lane else baseline
                if choice is None:
                    why = f" {NOT_NUMBERS}" if step.lanes[lane] else " ended"
                    line.add(why if answer == 0 else "", quiet)
                    continue
                bar = horizontal_bar(choice.probs[answer], max(1, self._cells - 15))
                line.add(f" {bar}", self.style(_lane_style(lane)))
                mark = CHOSEN if choice.answer == answer else " "
                line.add(f"{probability(choice.probs[answer])} {mark}", value)
                line.add(f"{choice.logprobs[answer]:6.1f}", quiet)
            lines.append(line)
        return lines

    def _drifts(self, compared: list[Compared]) -> list[Line]:
        """A line per measure: among the answers, and in the whole vocabulary."""
        quiet, value = self.style("panel--quiet"), self.style("subspace--value")
        columns = [
            _drift_figures(*compared_lane) if lane else {}
            for lane, compared_lane in zip(self._lanes, compared, strict=True)
        ]
        lines: list[Line] = []
        for label in DRIFT_LABELS:
            line = Line().add(f"  {label}".ljust(LABEL_CELLS), quiet)
            for column, figures in enumerate(columns):
                line.pad_to(LABEL_CELLS + column * self._cells, self.rich_style)
                text = figures.get(label, "")
                style = self.style("subspace--changed") if text.startswith("≠") else value
                line.add(f" {text}", style)
            lines.append(line)
        return lines


def _drift_figures(
    baseline: Choice | None, variant: Choice | None, drift: Drift | None
) -> dict[str, str]:
    """Figures by their label; empty where the two lanes cannot be compared."""
    if baseline is None or variant is None or drift is None:
        return {}
    among = subspace_drift(baseline, variant)
    return {
        "answer": "≠ changed" if among.changed else "= the same",
        "KL among": nats(among.kl),
        "KL of all": nats(drift.kl),
        "cos p among": cosine(among.cos_p),
        "cos p of all": cosine(drift.cos_p),
        "cos z among": cosine(among.cos_z),
        "cos z of all": cosine(drift.cos_z),
    }


def _lane_style(lane: int) -> str:
    return "subspace--variant" if lane else "subspace--baseline"
