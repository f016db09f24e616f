"""nDCG, as trec_eval's `ndcg_cut` and so BEIR have it (Järvelin and Kekäläinen 2002)."""

import math
from collections.abc import Iterable, Mapping, Sequence

DEPTH = 10
"""Documents of a query that count, the most similar ones."""


def ndcg(ranking: Sequence[str], relevance: Mapping[str, int]) -> float:
    """Normalised discounted cumulative gain, in 0..1, of the first `DEPTH` documents of a ranking.

    `ranking` has ids, best first, `relevance` those that were judged. The gain is the relevance
    itself, 0 where it is negative or there is none; a query without relevant documents has 0.
    """
    ideal = _discounted(sorted(relevance.values(), reverse=True))
    return _discounted(relevance.get(document, 0) for document in ranking) / ideal if ideal else 0.0


def _discounted(gains: Iterable[int]) -> float:
    """Sum of gain / log2(rank + 1) over the first `DEPTH` ranks, which count from 1."""
    return sum(
        max(gain, 0) / math.log2(rank + 1)
        for rank, gain in zip(range(1, DEPTH + 1), gains, strict=False)
    )
