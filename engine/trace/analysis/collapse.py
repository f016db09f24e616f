"""Where a lane's text collapses: where it begins to say little but what it has just said.

seq-rep-4 is the share of 4-grams that repeat another, 1 − unique / all (Welleck et al. 2020,
arXiv 1908.04319), here of the last `WINDOW` tokens; distinct-n is the number of different n-grams
over that of tokens (Li et al. 2016, arXiv 1510.03055).
"""

import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ..divergence import chosen_tokens
from ..records import Step

WINDOW = 96
"""Number of newest tokens that the measures of repetition look at."""
FEWEST = 24
"""Number of tokens that a text has at least where it has collapsed."""
LEVEL = 0.5
"""The seq-rep-4, in 0..1, from which on the window's text is repetition."""
MARGIN = 0.3
"""How far the seq-rep-4 of a lane that collapses is above the baseline's."""

COLLAPSED = (
    f"{LEVEL:.0%} or more of the 4-grams of its last {WINDOW} tokens repeat (seq-rep-4), "
    f"{MARGIN * 100:.0f} points above the baseline's"
)
"""Clause on a text that has collapsed."""

BASELINE_TOO = (
    "baseline too: it ends in repetition, but the baseline's text repeats itself nearly as much"
)
"""Clause on a text of which that is not to be told."""

NGram = tuple[int, ...]


def repeated_share(tokens: Sequence[int], n: int = 4) -> float:
    """Share of n-grams that repeat another, 1 − unique / all, in 0..1 (seq-rep-n of Welleck et al.
    2020); 0 of fewer than n tokens."""
    ngrams = _ngrams(tokens, n)
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def distinct_share(tokens: Sequence[int], n: int) -> float | None:
    """Number of different n-grams over that of tokens, in 0..1 (distinct-n of Li et al. 2016); None
    of no tokens."""
    return len(set(_ngrams(tokens, n))) / len(tokens) if tokens else None


def compression_ratio(text: str) -> float | None:
    """Bytes of a text in UTF-8 over those that zlib makes of them; None of an empty one.

    Whisper takes a segment of speech of more than 2.4 for a failure (Radford et al. 2022, arXiv
    2212.04356).
    """
    written = text.encode("utf-8", "surrogatepass")
    return len(written) / len(zlib.compress(written)) if written else None


@dataclass(frozen=True)
class Collapse:
    """Where a text begins to repeat itself to its end, beyond the baseline's."""

    start: int | None
    """Index of the token, which is the step, as `collapse_start` has it."""
    as_baseline: bool
    """Whether the text ends in repetition that is no collapse, as the baseline's repeats itself
    too."""


def lane_collapse(steps: Sequence[Step], lane: int) -> Collapse:
    """The collapse of a lane's text; the baseline, lane 0, is compared with no other text."""
    return text_collapse(chosen_tokens(steps, lane), chosen_tokens(steps, 0) if lane else ())


def text_collapse(tokens: Sequence[int], baseline: Sequence[int] = ()) -> Collapse:
    """The collapse of a text beside the baseline's; of the baseline's own without."""
    start = collapse_start(tokens, baseline)
    return Collapse(start, as_baseline=start is None and ends_in_repetition(tokens))


def find_collapse(steps: Sequence[Step], lane: int) -> int | None:
    """Step at which the repetition begins in which a lane's text stays to its end, as
    `collapse_start` has it; None if it does in none."""
    return lane_collapse(steps, lane).start


def collapse_start(tokens: Sequence[int], baseline: Sequence[int] = ()) -> int | None:
    """Index of the token at which the repetition begins in which a text stays to its end; None if
    it does in none.

    A text has collapsed once its seq-rep-4 over the last `WINDOW` tokens is at least `LEVEL`, and
    `MARGIN` above that of the baseline up to the same step or to its end; and only if it is under
    `LEVEL` at no later token. So a text that still grows counts as staying there, and a baseline
    that comes to repeat itself later does not mend the lane. Without a baseline, as for the
    baseline's own text, its seq-rep-4 counts as 0.

    The level is passed when half of the window is repetition. What is returned is where that began:
    from that token to the window's end, the 4-grams that come again, less `LEVEL` times all that
    there are, are the most (a CUSUM). In an exact repetition it is the first token.
    """
    if not ends_in_repetition(tokens):
        return None
    shares = list(windowed_shares(tokens))
    of_baseline = list(windowed_shares(baseline)) or [0.0]
    first = len(shares) - 1
    while first >= FEWEST and shares[first - 1] >= LEVEL:
        first -= 1
    for index in range(first, len(shares)):
        if is_collapsed(shares[index], of_baseline[min(index, len(of_baseline) - 1)]):
            start = max(0, index + 1 - WINDOW)
            return start + _repetition_start(tokens[start : index + 1])
    return None


def ends_in_repetition(tokens: Sequence[int]) -> bool:
    """Whether a text ends in repetition, whatever the baseline's does."""
    return len(tokens) >= FEWEST and repeated_share(tokens[-WINDOW:]) >= LEVEL


def is_collapsed(share: float, baseline_share: float) -> bool:
    """Whether a windowed seq-rep-4 is a collapse beside that of the baseline."""
    return share >= LEVEL and share >= baseline_share + MARGIN


def windowed_shares(tokens: Sequence[int]) -> Iterator[float]:
    """seq-rep-4 of the last `WINDOW` tokens after each token."""
    yield from (0.0 for _ in tokens[:3])
    newest: dict[NGram, int] = {}
    """Index of the newest 4-gram of this kind."""
    comes_again: list[bool] = []
    """Whether a 4-gram has come again, by its index; it left the window before, or is unique in it
    no more."""
    start = unique = 0
    for index, ngram in enumerate(_ngrams(tokens, 4)):
        if index - start == WINDOW - 3:
            unique -= not comes_again[start]
            start += 1
        before = newest.get(ngram, -1)
        newest[ngram] = index
        comes_again.append(False)
        if before >= 0:
            comes_again[before] = True
        unique += before < start
        yield 1 - unique / (index + 1 - start)


def shares_at(steps: Sequence[Step], numbers: range, lane: int) -> list[float]:
    """seq-rep-4 of a lane's last `WINDOW` tokens at each of these steps, or at the lane's last
    where it has ended."""
    last = bisect_left(steps, True, hi=numbers.stop, key=lambda step: step.lanes[lane] is None) - 1
    first = max(0, min(numbers.start, last) + 1 - WINDOW)
    shares = list(windowed_shares(chosen_tokens(steps[first : numbers.stop], lane))) or [0.0]
    return [shares[min(number, last) - first] for number in numbers]


def _repetition_start(window: Sequence[int]) -> int:
    """Index from which the window's 4-grams come again the most, as `collapse_start` counts it."""
    ngrams = _ngrams(window, 4)
    later = set[NGram]()
    excess = most = 0.0
    start = 0
    for index in reversed(range(len(ngrams))):
        excess += (ngrams[index] in later) - LEVEL
        later.add(ngrams[index])
        if excess > most:
            most, start = excess, index
    return start


def _ngrams(tokens: Sequence[int], n: int) -> list[NGram]:
    return list(zip(*(islice(tokens, first, None) for first in range(n)), strict=False))
