"""View 2: in which layer a variant leaves the baseline."""

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.widgets import ContentSwitcher

from ...engine.trace.figures import distance
from ...engine.trace.records import Lane, Step, one_minus
from ...engine.trace.scales import Decades, decades_around, power_of_ten
from ..moment import Moment
from ..widgets.candidates import horizontal_bar
from ..widgets.lens_panel import LensPanel
from ..widgets.panel import NOT_FINITE, Clicked, Line, Panel
from .base import InspectorView

NAME_CELLS = 9
PROFILE_CELLS = 32
BAR_CELLS = 22
LEAST_MAP_ROWS = 12
"""Rows below the selected lane's map from which on another lane's is drawn there."""
SHADES = " ·░▒▓█"
LIMITS = (0.001, 0.01, 0.05, 0.2, 0.5)
"""1 − cos from which on a cell takes the next darker shade."""
MOST_DECADES = 3
"""Length of the bars' scale, at most: about that of the shades. Lower values have no bar."""
DROPPED = "✕"


MAP, LENS, RAW_LENS = "map", "lens", "raw lens"


class LayersView(InspectorView):
    """View of the map of all steps, or of one step through the logit lens."""

    NOUN = "Layers view"
    KEYWORDS = "map heat residual stream sublayer depth"

    FRAMES = 5.0

    mode = MAP

    def compose(self) -> ComposeResult:
        with ContentSwitcher(initial="layers-map"):
            yield LayersPanel(id="layers-map")
            yield LensPanel(id="layers-lens")

    def show(self, moment: Moment) -> None:
        shown = "layers-map" if self.mode == MAP else "layers-lens"
        self.query_one(ContentSwitcher).current = shown
        if self.mode == MAP:
            self.query_one(LayersPanel).show(moment)
        else:
            self.query_one(LensPanel).show(moment, raw=self.mode == RAW_LENS)

    def turn(self) -> None:
        """Switch from the map to the lens, to the raw lens, and back."""
        self.mode = {MAP: LENS, LENS: RAW_LENS, RAW_LENS: MAP}[self.mode]

    def scroll_pages(self, pages: int) -> None:
        panel = self.query_one(LensPanel)
        panel.scroll_lines(pages * (panel.size.height - 4))


class LayersPanel(Panel):
    """Heat map of sublayers over a page of steps, and the profile of the cursor's step.

    A tall terminal shows those of other lanes below.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "layers--heat",
        "layers--cursor",
        "layers--dropped",
        "layers--value",
    }

    moment: Moment | None = None
    _page = range(0)
    """Indices of the steps shown, a column each."""

    def show(self, moment: Moment) -> None:
        self.moment = moment
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        moment, self._page = self.moment, range(0)
        if moment is None or moment.step is None:
            return [self.title(width, "layers")]
        if moment.lane == 0:
            baseline = "The baseline does not drift from itself: ↓ selects a variant."
            return [self.title(width, "layers"), Line().add(baseline, self.style("panel--quiet"))]
        lines = self._map(moment, moment.lane, width, height)
        for lane in range(1, len(moment.header.lanes)):
            if lane != moment.lane and height - len(lines) > LEAST_MAP_ROWS:
                lines += [Line(), *self._map(moment, lane, width, height - len(lines) - 1)]
        return lines

    def _map(self, moment: Moment, number: int, width: int, height: int) -> list[Line]:
        """Heat map of one lane, in at most `height` lines."""
        quiet = self.style("panel--quiet")
        lane = moment.header.lanes[number]
        legend = "1 − cos:" + "".join(
            f"  {shade} ≥{limit:g}" for shade, limit in zip(SHADES[1:], LIMITS, strict=True)
        )
        lines = [
            self.title(
                width,
                f"residual stream of {lane.name} from baseline, after each sublayer",
                legend,
            )
        ]
        if width < len(legend) + len(lane.name) + 60:
            lines.append(Line().add(legend, quiet))
        columns = max(1, width - NAME_CELLS - PROFILE_CELLS - 2)
        first = moment.cursor // columns * columns
        page = [_layers(step, number) for step in moment.steps[first : first + columns]]
        self._page = range(first, first + len(page))
        now = _layers(moment.steps[moment.cursor], number)
        if now is None:
            why = "Not measured: a lane has ended, or the variant has another depth."
            return [*lines, Line().add(why, quiet)]
        scale = _scale(moment, self._page)
        groups = _groups(len(now), height - len(lines) - 1)
        here = moment.cursor - first
        for places in groups:
            line = self._label(lane, places)
            cells = "".join(
                _shade(_greatest([layers[place] for place in places])) if layers else " "
                for layers in page
            ).ljust(columns)
            heat = self.style("layers--heat")
            line.add(cells[:here], heat).add(cells[here], self.style("layers--cursor"))
            line.add(cells[here + 1 :], heat).add("  ", heat)
            value = _greatest([now[place] for place in places])
            bar = horizontal_bar(0.0 if value is None else scale.share(value), BAR_CELLS)
            line.add(bar, self.style("layers--heat"))
            figure = distance(value).rjust(PROFILE_CELLS - BAR_CELLS)
            lines.append(line.add(figure, self.style("layers--value")))
        lines.append(self._foot(moment, columns, scale))
        return lines

    def _foot(self, moment: Moment, columns: int, scale: Decades) -> Line:
        """Line below: the steps of the map, the scale and the step of the bars."""
        first, last = self._page[0], self._page[-1]
        texts = "the baseline's tokens" if moment.header.context != "free" else "its own tokens"
        foot = f"steps {first} to {last}, on {texts}"
        if len(foot) > columns:
            foot = f"steps {first}–{last}, {texts.removeprefix('the ')}"
        low, high = map(power_of_ten, scale)
        bounds = f"{low} log 1−cos".ljust(BAR_CELLS - len(high)) + high
        step = f"step {moment.cursor}".rjust(PROFILE_CELLS - BAR_CELLS)
        quiet = self.style("panel--quiet")
        line = Line().pad_to(NAME_CELLS, self.rich_style)
        return line.add(foot.ljust(columns + 2), quiet).add(bounds + step, quiet)

    def on_click(self, event: events.Click) -> None:
        column = event.x - NAME_CELLS
        if event.y > 0 and 0 <= column < len(self._page):
            self.post_message(Clicked(step=self._page[column]))

    def _label(self, lane: Lane, places: range) -> Line:
        dropped = any(
            place // 2 in (lane.dropped_mlp if place % 2 else lane.dropped_attention)
            for place in places
        )
        layer, part = divmod(places[0], 2)
        name = f"{layer:3} {('attn', 'mlp')[part] if len(places) == 1 else ''}"
        if len(places) > 2:
            name = f"{layer:3}–{places[-1] // 2}"
        line = Line().add(name.ljust(NAME_CELLS - 1), self.style("panel--quiet"))
        return line.add(DROPPED if dropped else " ", self.style("layers--dropped"))


def _layers(step: Step, lane: int) -> list[float | None] | None:
    """1 − cos of a lane after each sublayer, on the baseline's tokens where the trace has them."""
    cosines = step.local_layers_of(lane) if step.local_layers else step.layers_of(lane)
    return None if cosines is None else [one_minus(cosine) for cosine in cosines]


def _scale(moment: Moment, page: range) -> Decades:
    """Scale of the bars: that of all variants and steps shown, so that bars can be compared."""
    rows = [
        _layers(moment.steps[number], lane)
        for number in page
        for lane in range(1, len(moment.header.lanes))
    ]
    values = [value for layers in rows if layers for value in layers if value]
    return decades_around(min(values, default=1.0), max(values, default=1.0), MOST_DECADES)


def _groups(sublayers: int, rows: int) -> list[range]:
    """Sublayers of each row: one if there is room, else as few whole layers as fit."""
    if sublayers <= rows:
        return [range(place, place + 1) for place in range(sublayers)]
    layers = 1
    while sublayers > 2 * layers * rows:
        layers += 1
    size = 2 * layers
    return [range(at, min(at + size, sublayers)) for at in range(0, sublayers, size)]


def _greatest(values: list[float | None]) -> float | None:
    """Highest value; None if one of them is not finite."""
    finite = [value for value in values if value is not None]
    return max(finite) if len(finite) == len(values) else None


def _shade(value: float | None) -> str:
    return NOT_FINITE if value is None else SHADES[sum(value >= limit for limit in LIMITS)]
