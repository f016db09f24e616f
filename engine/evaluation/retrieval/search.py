"""The documents most similar to each query, found chunk by chunk."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from .ndcg import DEPTH


class Search:
    """The most similar documents of each query, among the chunks searched so far, in one lane.

    Documents of equal similarity stand in the order of `places`. One whose similarity is no number
    is not found.
    """

    def __init__(self, queries: Tensor, left_out: np.ndarray, places: np.ndarray) -> None:
        """`queries` are embeddings of length 1, float32 [queries, hidden]; `left_out`, int64
        [queries], is the number of a document that a query does not find, or -1."""
        self._queries = queries.double()
        self._left_out = left_out[:, None]
        self._places = places
        self.documents = np.zeros((len(queries), 0), np.int64)
        """Numbers of the documents, [queries, at most `DEPTH`], best first."""
        self.similarities = np.zeros((len(queries), 0), np.float32)
        """Their cosine similarities; NaN where the document is not found."""

    def add(self, first: int, embeddings: Tensor) -> None:
        """Search the documents from number `first` on, float32 [documents, hidden] of length 1."""
        # Sums in float64 are rounded to the same float32 wherever a document stands, so that equal
        # embeddings are equally similar.
        similarities = (self._queries @ embeddings.double().T).clamp(-1, 1).float().numpy()
        numbers = np.arange(first, first + len(embeddings))
        similarities[self._left_out == numbers] = np.nan
        numbers = np.broadcast_to(numbers, similarities.shape)
        documents = np.concatenate([self.documents, numbers], axis=1)
        similarities = np.concatenate([self.similarities, similarities], axis=1)
        # NaN is sorted last.
        best = np.lexsort((self._places[documents], -similarities), axis=1)[:, :DEPTH]
        self.documents = np.take_along_axis(documents, best, axis=1)
        self.similarities = np.take_along_axis(similarities, best, axis=1)


def places_of(ids: Sequence[str]) -> np.ndarray:
    """Place of each document, int64, when ids stand in descending order, as trec_eval has ties."""
    places = np.empty(len(ids), np.int64)
    places[sorted(range(len(ids)), key=ids.__getitem__, reverse=True)] = np.arange(len(ids))
    return places
