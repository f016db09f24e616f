"""Outputs of a model at one position, before anything is measured of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """Embedding, logits and residual stream of one position in every row, in the model's dtype.

    Those of a captured step are overwritten by the next one.
    """

    h: Tensor
    """Embeddings [rows, hidden]: the input of the model's head."""
    z: Tensor
    """Logits [rows, vocabulary], as the model's own head returns them."""
    streams: Tensor
    """Residual stream [2 layers + 1, rows, hidden] before attention 0 and after attention 0, MLP 0,
    attention 1, …; zeros in a row whose model has another depth than row 0's, NaN where the stream
    is not known."""
    reduced: Any = None
    """What the reduction that the step runs with has made of these, if it has."""
    device_seconds: Callable[[], float] = lambda: 0.0
    """Seconds that the step took on a GPU, once it is done; 0 where the host's clock knows."""
