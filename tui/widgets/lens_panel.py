"""What each layer of a step would say, and what its two sublayers change."""

from typing import ClassVar

from ...engine.trace.records import LaneLens, Lens, Transition
from ..view import View
from .candidates import probability
from .panel import Line, Panel, fill

LAYER_CELLS = 6
CELLS = 7
TRANSITION_CELLS = 2 * 4 * CELLS
PROBABILITY_CELLS = 5
LEAST_TOKEN_CELLS = 13
"""Below which the probability is left out."""
DROPPED = "✕ dropped"


class LensPanel(Panel):
    """A line per layer, as high as the model is deep."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "lens--token",
        "lens--other",
        "lens--value",
        "lens--dropped",
    }

    view: View | None = None
    raw = False

    def show(self, view: View, *, raw: bool) -> None:
        """`raw` leaves the final norm out."""
        self.view, self.raw = view, raw
        self.styles.height = 4 + view.header.model.layers
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:  # noqa: ARG002
        view = self.view
        if view is None or view.step is None:
            return [self.title(width, "logit lens")]
        quiet = self.style("panel--quiet")
        how = "the head alone, without the final norm" if self.raw else "the final norm and head"
        lines = [
            self.title(
                width, f"logit lens at step {view.cursor}: each layer's output through {how}"
            )
        ]
        lens = view.step.lens
        if lens is None:
            why = (
                "This step has not been read. While a model decodes, l reads it; "
                "--lens reads every step."
            )
            return [*lines, Line().add(why, quiet)]
        lanes = _rows(lens, view.lane)
        mine = lanes[-1]
        if mine is None or lanes[0] is None:
            why = "Not read: the lane has ended, or the variant has another depth."
            return [*lines, Line().add(why, quiet)]
        room = (width - LAYER_CELLS - TRANSITION_CELLS) // len(lanes)
        with_probability = room >= LEAST_TOKEN_CELLS
        lines += self._heads(view, room, local=lens.local is not None)
        header = view.header.lanes[view.lane]
        for point in range(0, len(mine.tokens), 2):
            line = Line().add(f"{point // 2 - 1:4}  " if point else "  in  ", quiet)
            for lane in lanes:
                assert lane is not None
                tokens, texts, probs = _points(lane, raw=self.raw)
                other = tokens[point] != _points(lanes[0], raw=self.raw)[0][point]
                style = self.style("lens--other" if other else "lens--token")
                cells = room - 1 - PROBABILITY_CELLS * with_probability
                line.add(fill(texts[point] or "·", cells) + " ", style)
                if with_probability:
                    line.add(probability(probs[point]).ljust(PROBABILITY_CELLS), quiet)
            if point:
                layer = point // 2 - 1
                for part, dropped in ((0, header.dropped_attention), (1, header.dropped_mlp)):
                    if layer in dropped:
                        cells = DROPPED.rjust(4 * CELLS)
                        line.add(cells, self.style("lens--dropped"))
                    else:
                        line.add(
                            _figures(mine.transitions[2 * layer + part]), self.style("lens--value")
                        )
            lines.append(line)
        return lines

    def _heads(self, view: View, room: int, *, local: bool) -> list[Line]:
        quiet = self.style("panel--quiet")
        names = [lane.name for lane in view.header.lanes]
        shown = [names[0], names[view.lane]] if view.lane else [names[0]]
        top = Line().pad_to(LAYER_CELLS, quiet)
        for name in shown:
            top.add(fill(name, room - 1) + " ", quiet)
        top.add("attention adds: 1 − cos".rjust(4 * CELLS), quiet)
        top.add("MLP adds: 1 − cos".rjust(4 * CELLS), quiet)
        bottom = Line().add("layer".ljust(LAYER_CELLS), quiet)
        of_tokens = "on the baseline's tokens" if local and view.lane else "top token"
        bottom.add(fill(of_tokens, room * len(shown)), quiet)
        bottom.add("".join(head.rjust(CELLS) for head in ("h", "z", "p", "KL nats") * 2), quiet)
        return [top, bottom]


def _rows(lens: Lens, lane: int) -> list[LaneLens | None]:
    """The baseline's and the selected lane's, on the same tokens where there are such."""
    if lane == 0:
        return [lens.lanes[0]]
    return [lens.lanes[0], lens.local[lane - 1] if lens.local else lens.lanes[lane]]


def _points(lane: LaneLens, *, raw: bool) -> tuple[list[int], list[str], list[float | None]]:
    if raw:
        return lane.raw_tokens, lane.raw_texts, lane.raw_probs
    return lane.tokens, lane.texts, lane.probs


def _figures(change: Transition) -> str:
    values = [change.cos_h, change.cos_z, change.cos_p]
    figures = [None if value is None else 1 - value for value in values]
    return "".join(_figure(value).rjust(CELLS) for value in (*figures, change.kl))


def _figure(value: float | None) -> str:
    if value is None:
        return "n/a"
    # A cosine can pass 1 by its rounding.
    return f"{max(value, 0.0):.3f}" if value < 100 else f"{value:.0f}"
