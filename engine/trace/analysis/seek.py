"""Steps worth going to: where a lane disagrees, where a condition holds, where a text begins."""

import itertools
import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ..divergence import differs
from ..printable import visible
from ..records import Header, Step
from .breakpoints import Breakpoint

Finder = Callable[[list[Step], range], Iterator[tuple[int, int]]]
"""Yields a step and a lane for each match that these new numbers add; called with each number once,
in order."""


@dataclass(frozen=True)
class Sought:
    """What to go to, from step to step."""

    clause: str
    """What is so at a matching step: "No step where …"."""
    lane: int | None
    """Lane that it depends on and that stays selected; None if a match selects its own."""
    start: Callable[[], Finder] = field(compare=False)
    """Makes a finder for one history."""


class Matches:
    """Steps of one history at which something sought is, and the lanes that have it there."""

    def __init__(self, sought: Sought) -> None:
        self.steps: list[int] = []
        """Numbers of the matching steps, ascending."""
        self._lanes: dict[int, int] = {}
        """Lanes that match at each of them, as bits: thousands of lists would cost the garbage
        collector more than the search."""
        self._find = sought.start()
        self._taken = 0

    def take(self, steps: list[Step]) -> "Matches":
        """Look through the steps that are new since the last call; return self."""
        numbers = range(self._taken, len(steps))
        self._taken = numbers.stop
        for number, lane in self._find(steps, numbers):
            if number not in self._lanes:
                insort(self.steps, number)
            self._lanes[number] = self._lanes.get(number, 0) | 1 << lane
        return self

    def after(self, cursor: int) -> int | None:
        """Nearest matching step after the cursor."""
        index = bisect_right(self.steps, cursor)
        return self.steps[index] if index < len(self.steps) else None

    def before(self, cursor: int) -> int | None:
        """Nearest matching step before the cursor."""
        index = bisect_left(self.steps, cursor)
        return self.steps[index - 1] if index else None

    def lane_at(self, step: int, lane: int) -> int:
        """This lane if it matches at a matching step, else the first that does."""
        lanes = self._lanes[step]
        return lane if lanes >> lane & 1 else (lanes & -lanes).bit_length() - 1

    def position(self, cursor: int) -> str:
        """Number of matching steps, and which of them the cursor is on: `3 of 17`, or `17`."""
        count = len(self.steps)
        index = bisect_right(self.steps, cursor)
        return f"{index} of {count}" if cursor in self._lanes else f"{count}"


def disagreements(header: Header, lane: int) -> Sought:
    """Steps at which a lane's most probable token on the baseline's text is not the baseline's.

    A context free has no such reading; there, steps at which the lane's own token differs. With
    lane 0, those of any variant.
    """
    name = header.lanes[lane].name if lane else "a variant"
    lanes = [lane] if lane else range(1, len(header.lanes))
    if header.context == "free":
        return Sought(f"the token of {name} differs", lane, lambda: _each(lanes, differs))
    drift_of = Step.local_of if header.context == "both" else Step.drift_of

    def disagrees(step: Step, lane: int) -> bool:
        drift = drift_of(step, lane)
        return drift is not None and not drift.top1 and not drift.not_comparable

    clause = f"the local top-1 of {name} is not the baseline's"
    return Sought(clause, lane, lambda: _each(lanes, disagrees))


def _each(lanes: Iterable[int], test: Callable[[Step, int], bool]) -> Finder:
    def find(steps: list[Step], numbers: range) -> Iterator[tuple[int, int]]:
        return ((number, lane) for number in numbers for lane in lanes if test(steps[number], lane))

    return find


def condition(stop: Breakpoint) -> Sought:
    """Steps at which a breakpoint's condition holds."""

    def find(steps: list[Step], numbers: range) -> Iterator[tuple[int, int]]:
        for lane in stop.lanes:
            sentences = stop.sentences(steps, numbers, lane)
            yield from ((n, lane) for n, met in zip(numbers, sentences, strict=True) if met)

    return Sought(f"'{stop.text.strip()}' holds", None, lambda: find)


def text_search(query: str, header: Header) -> Sought:
    """Steps at which a text begins in some lane, as the texts are shown: across tokens, and with
    either case of its letters unless it has a capital."""
    query = visible(query)
    pattern = re.compile(re.escape(query), re.IGNORECASE if query == query.lower() else 0)

    def start() -> Finder:
        texts = [_LaneText(lane, pattern, len(query)) for lane in range(len(header.lanes))]
        return lambda steps, numbers: (
            (step, text.lane) for text in texts for step in text.take(steps, numbers)
        )

    return Sought(f"'{query}' begins", None, start)


class _LaneText:
    """Text of a lane that is searched as it grows."""

    def __init__(self, lane: int, pattern: re.Pattern[str], length: int) -> None:
        """`length` is that of every match."""
        self.lane = lane
        self._pattern = pattern
        self._length = length
        self._text = ""
        self._ends: list[int] = []
        """Length of the text after each step."""
        self._searched = 0
        """Index before which no further match begins."""

    def take(self, steps: list[Step], numbers: range) -> Iterator[int]:
        """Add the text of these steps; yield the steps at which the matches begin that it ends."""
        tokens = (steps[number].lanes[self.lane] for number in numbers)
        parts = [visible(token.text) if token else "" for token in tokens]
        lengths = itertools.accumulate(map(len, parts), initial=len(self._text))
        self._ends += itertools.islice(lengths, 1, None)
        self._text += "".join(parts)
        for match in self._pattern.finditer(self._text, self._searched):
            self._searched = match.end()
            yield bisect_right(self._ends, match.start())
        self._searched = max(self._searched, len(self._text) - self._length + 1)
