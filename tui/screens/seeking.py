"""What n and N go to: a condition or a text that the user has set, or else disagreements."""

from ...engine.trace.analysis.breakpoints import Breakpoint
from ...engine.trace.analysis.seek import Matches, Sought, condition, disagreements, text_search
from ...engine.trace.records import Header, Step
from ..history_memo import HistoryMemo
from ..moment import Moment
from ..widgets.panel import shorten
from ..widgets.status import STOPS

DIFFERS = "≠"
LABEL_CELLS = 24


class Seeking:
    """Condition and text that the user has set, of which the newer is sought, and its matches."""

    def __init__(self) -> None:
        self.breakpoint: Breakpoint | None = None
        """Condition at which playing stops too."""
        self.query = ""
        """Text searched in the lanes' texts; empty if none is."""
        self._query_is_newer = False
        self._memo = HistoryMemo[Matches]()

    def stop_at(self, condition: Breakpoint | None) -> None:
        self.breakpoint, self._query_is_newer = condition, False

    def search(self, query: str) -> None:
        self.query, self._query_is_newer = query, True

    @property
    def is_default(self) -> bool:
        """Whether disagreements are sought, as nothing is set."""
        return self.breakpoint is None and not self.query

    def sought(self, header: Header, lane: int) -> Sought:
        """What is sought with this lane selected."""
        return self._labelled(header, lane)[-1][1]

    def matches(self, steps: list[Step], sought: Sought) -> Matches:
        """Matches in these steps, of which only those not seen yet are looked through."""
        return self._memo.growing(steps, sought, lambda: Matches(sought)).take(steps)

    def label(self, moment: Moment) -> str:
        """What is set or else sought by default, the sought with the number of its steps."""
        labelled = self._labelled(moment.header, moment.lane)
        position = self.matches(moment.steps, labelled[-1][1]).position(moment.cursor)
        return f"{'  '.join(label for label, _ in labelled)} ({position})"

    def _labelled(self, header: Header, lane: int) -> list[tuple[str, Sought]]:
        """Words for the status line and what they stand for; the last is what is sought."""
        chosen: list[tuple[str, Sought]] = []
        if self.breakpoint is not None:
            text = shorten(self.breakpoint.text, LABEL_CELLS)
            chosen.append((f"{STOPS} {text}", condition(self.breakpoint)))
        if self.query:
            search = text_search(self.query, header)
            text = (f"/{shorten(self.query, LABEL_CELLS)}", search)
            chosen.insert(len(chosen) if self._query_is_newer else 0, text)
        if not chosen:
            local = "" if header.context == "free" else "local top-1 "
            chosen = [(f"{local}{DIFFERS}", disagreements(header, lane))]
        return chosen
