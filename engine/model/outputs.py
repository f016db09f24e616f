"""Outputs of a model at one position, before anything is measured of them."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """Embedding, logits and residual stream of one position in every row, in the model's dtype."""

    h: Tensor
    """Embeddings [rows, hidden]: the input of the model's head."""
    z: Tensor
    """Logits [rows, vocabulary], as the model's own head returns them."""
    streams: Tensor
    """Residual stream [2 layers + 1, rows, hidden] before attention 0 and after attention 0, MLP 0,
    attention 1, …; zeros in a row whose model has another depth than row 0's, NaN where the stream
    is not known."""
