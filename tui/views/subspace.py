"""View 4: a few answers among themselves, beside the whole vocabulary."""

from typing import ClassVar

from textual import events
from textual.app import ComposeResult

from ...engine.trace.analysis.subspace import choices, kl_among, subspace_drift
from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.records import Step
from ..history_memo import HistoryMemo
from ..moment import Moment
from ..widgets.candidates import CHOSEN, horizontal_bar, probability, quoted
from ..widgets.chart import Chart, ChartLine, Picture
from ..widgets.measures import nats
from ..widgets.panel import Clicked, Line, Panel, shorten
from .base import InspectorView

LABEL_CELLS = 14
LEAST_COLUMN = 16
MOST_COLUMN = 26
NO_ANSWERS = "No answers were recorded: --answers A,B,C,D, or a while decoding, names some."


class SubspaceView(InspectorView):
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
        f"KL(p‖q), nats: whole vocabulary ──, among the answers {CHOSEN}",
        steps=len(steps),
        log_y=True,
    )


class SubspacePanel(Panel):
    """Options by lanes at the cursor's step, and both drifts of each variant."""

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
        """Those that have a column, of so many cells."""
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
        quiet, value = self.style("panel--quiet"), self.style("subspace--value")
        if moment is None or moment.step is None:
            return [self.title(width, "answers")]
        answers = moment.header.answers
        if answers is None or moment.step.answers is None:
            return [self.title(width, "answers"), Line().add(NO_ANSWERS, quiet)]
        columns = max(1, (width - LABEL_CELLS) // LEAST_COLUMN)
        first = max(1, moment.lane - columns + 2)
        lanes = [0, *range(first, len(moment.header.lanes))][:columns]
        cells = min(MOST_COLUMN, (width - LABEL_CELLS) // len(lanes))
        self._lanes, self._cells = lanes, cells
        texts = "the baseline's tokens" if moment.header.context != "free" else "own tokens"
        lines = [
            self.title(
                width,
                f"answers at step {moment.cursor}, on {texts}",
                "p̂: among the answers; log p: in the whole vocabulary, nats",
                "p̂ among them, log p of all",
            )
        ]
        names = Line().pad_to(LABEL_CELLS, self.rich_style)
        for lane in lanes:
            name = ("▸" if lane == moment.lane else " ") + moment.header.lanes[lane].name
            style = self.style("subspace--variant" if lane else "subspace--baseline")
            names.add(shorten(name, cells - 1).ljust(cells), style)
        lines.append(names)
        compared = [choices(moment.step, max(lane, 1)) for lane in lanes]
        chosen = [pair[1] if lane else pair[0] for lane, pair in zip(lanes, compared, strict=True)]
        for place, text in enumerate(answers.texts):
            line = Line().add(f"  {shorten(quoted(text), LABEL_CELLS - 3)}", value)
            for column, (lane, one) in enumerate(zip(lanes, chosen, strict=True)):
                line.pad_to(LABEL_CELLS + column * cells, self.rich_style)
                if one is None:
                    why = f" {NOT_NUMBERS}" if moment.step.lanes[lane] else " ended"
                    line.add(why if place == 0 else "", quiet)
                    continue
                bar = horizontal_bar(one.probs[place], max(1, cells - 15))
                line.add(
                    f" {bar}", self.style("subspace--variant" if lane else "subspace--baseline")
                )
                mark = CHOSEN if one.answer == place else " "
                line.add(f"{probability(one.probs[place])} {mark}", value)
                line.add(f"{one.logprobs[place]:6.1f}", quiet)
            lines.append(line)
        rows: dict[str, list[str]] = {
            "answer": [],
            "KL among": [],
            "KL of all": [],
            "cos p among": [],
            "cos p of all": [],
            "cos z among": [],
            "cos z of all": [],
        }
        for lane, (baseline, variant, drift) in zip(lanes, compared, strict=True):
            if lane == 0 or baseline is None or variant is None or drift is None:
                for row in rows.values():
                    row.append("")
                continue
            among = subspace_drift(baseline, variant)
            rows["answer"].append("≠ changed" if among.changed else "= the same")
            rows["KL among"].append(nats(among.kl))
            rows["KL of all"].append(nats(drift.kl))
            for space, inside in (("p", among.cos_p), ("z", among.cos_z)):
                rows[f"cos {space} among"].append("n/a" if inside is None else f"{inside:.4f}")
                whole = drift.cos_p if space == "p" else drift.cos_z
                rows[f"cos {space} of all"].append("n/a" if whole is None else f"{whole:.4f}")
        for label, row in rows.items():
            line = Line().add(f"  {label}".ljust(LABEL_CELLS), quiet)
            for column, text in enumerate(row):
                line.pad_to(LABEL_CELLS + column * cells, self.rich_style)
                style = self.style("subspace--changed") if text.startswith("≠") else value
                line.add(f" {text}", style)
            lines.append(line)
        return lines
