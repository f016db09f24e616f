"""The overview: texts above, candidates and drift of the next token below."""

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from ..moment import Moment
from .candidates import CandidatesPanel
from .drift_panel import DriftPanel
from .text_panel import TextPanel
from .variants_panel import VariantsPanel

TALL = 50
"""Height from which the overview shows all variants' drift too."""
ROOMY_LOWER = 32
"""Height of the lower panels where the texts leave them as much."""


class Overview(Vertical):
    """Panels of the overview; a tall terminal gives the lower ones what the texts do not need."""

    moment: Moment | None = None

    def compose(self) -> ComposeResult:
        yield TextPanel(id="text")
        with Horizontal(id="lower"):
            yield CandidatesPanel(id="candidates")
            with Vertical(id="drifts"):
                yield DriftPanel(id="drift")
                yield VariantsPanel(id="all-variants")

    def show_text(self, moment: Moment) -> None:
        self.moment = moment
        self._share_height(moment)
        self.query_one(TextPanel).show(moment)

    def show_charts(self, moment: Moment) -> None:
        self.query_one(CandidatesPanel).show(moment)
        self.query_one(DriftPanel).show(moment)
        self.query_one(VariantsPanel).show(moment)

    def on_resize(self, _event: events.Resize) -> None:
        if self.moment is not None:
            self._share_height(self.moment)

    def _share_height(self, moment: Moment) -> None:
        """Choose which panels there are, and one of two heights for the lower ones.

        A text that grows takes rows from them once, as every line is sent then.
        """
        tall = self.size.height >= TALL
        spare = self.size.height - self.query_one(TextPanel).rows_needed(moment)
        self.query_one("#lower").set_class(tall and spare >= ROOMY_LOWER, "roomy")
        self.query_one(VariantsPanel).display = tall and len(moment.header.lanes) > 2
