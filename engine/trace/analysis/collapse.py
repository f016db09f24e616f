"""Where a lane's text begins to say nothing but what it has said: collapse into repetition.

seq-rep-4 is the share of 4-grams that repeat another, 1 − unique / all (Welleck et al. 2020,
arXiv 1908.04319); distinct-n the number of different n-grams over that of tokens (Li et al. 2016,
arXiv 1510.03055). Both are taken over a window of a lane's tokens.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from ..divergence import chosen_tokens
from ..records import Step

WINDOW = 96
"""Number of newest tokens that the measures of repetition look at."""
FEWEST = 24
"""Number of tokens before which no text has collapsed."""
LEVEL = 0.5
"""How far the windowed seq-rep-4 must be above the baseline's, in 0..1."""

NGram = tuple[int, ...]


def repeated_share(tokens: Sequence[int], n: int = 4) -> float:
    """Share of n-grams that occurred before, 1 − unique / all, in 0..1 (seq-rep-n of Welleck et al.
    2020); 0 of fewer than n tokens."""
    ngrams = _ngrams(tokens, n)
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def distinct_share(tokens: Sequence[int], n: int) -> float | None:
    """Number of different n-grams over the number of tokens, in 0..1 (distinct-n of Li et al.
    2016); None of no tokens."""
    return len(set(_ngrams(tokens, n))) / len(tokens) if tokens else None


def compression_ratio(text: str) -> float | None:
    """Bytes of a text in UTF-8 over those that zlib makes of them; None of an empty one.

    Whisper takes a segment of speech with more than 2.4 for a failure (Radford et al. 2022).
    """
    written = text.encode("utf-8", "surrogatepass")
    return len(written) / len(zlib.compress(written)) if written else None


def find_collapse(steps: Sequence[Step], lane: int) -> int | None:
    """Step at which the repetition begins that a lane's text stays in to its end.

    See `collapse_start`. The baseline, lane 0, has none to be compared with.
    """
    return collapse_start(chosen_tokens(steps, lane), chosen_tokens(steps, 0) if lane else ())


def collapse_start(tokens: Sequence[int], baseline: Sequence[int]) -> int | None:
    """Index of the token at which the repetition begins that a text stays in to its end.

    A text collapses where its seq-rep-4 over the last `WINDOW` tokens is `LEVEL` or more above the
    baseline's at the same step, or at the baseline's last where it has ended, and is at no later
    token below `LEVEL`: a text that still grows counts as staying there, and a baseline that
    repeats itself later does not mend the lane. The baseline's own text is compared with none:
    `baseline` is then empty, and its seq-rep-4 counts as 0.

    That is known only where repeated 4-grams fill half of the window. The index is that of the token
    at which they begin: of all tails of the window, the one from there has the most 4-grams that
    come again, beyond a share of `LEVEL` of its length.
    """
    if len(tokens) < FEWEST or repeated_share(tokens[-WINDOW:]) < LEVEL:
        return None
    shares = list(windowed_shares(tokens))
    first = len(shares)
    while first >= FEWEST and shares[first - 1] >= LEVEL:
        first -= 1
    of_baseline = list(windowed_shares(baseline)) or [0.0]
    for index in range(first, len(shares)):
        if shares[index] >= LEVEL + of_baseline[min(index, len(of_baseline) - 1)]:
            start = max(0, index + 1 - WINDOW)
            return start + _repetition_start(tokens[start : index + 1])
    return None


def windowed_shares(tokens: Sequence[int]) -> Iterator[float]:
    """seq-rep-4 of the last `WINDOW` tokens after each token."""
    ngrams = _ngrams(tokens, 4)
    most = WINDOW - 3
    counts = Counter[NGram]()
    yield from (0.0 for _ in tokens[:3])
    for index, ngram in enumerate(ngrams):
        counts[ngram] += 1
        if index >= most:
            left = ngrams[index - most]
            counts[left] -= 1
            if not counts[left]:
                del counts[left]
        yield 1 - len(counts) / min(index + 1, most)


def _repetition_start(window: Sequence[int]) -> int:
    """Index from which the window has the most 4-grams that come again, beyond the level."""
    ngrams = _ngrams(window, 4)
    later = set[NGram]()
    excess = most = 0.0
    start = len(window) - 1
    for index in reversed(range(len(ngrams))):
        excess += (ngrams[index] in later) - LEVEL
        later.add(ngrams[index])
        if excess > most:
            most, start = excess, index
    return start


def _ngrams(tokens: Sequence[int], n: int) -> list[NGram]:
    return list(zip(*(islice(tokens, first, None) for first in range(n)), strict=False))
