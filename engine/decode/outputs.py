"""What a step of the decoder gives: the three spaces of the paper before they are measured."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """Of one position in every lane, in the model's dtype."""

    h: Tensor
    """[lanes, hidden]: the head's input."""
    z: Tensor
    """[lanes, vocabulary]: what the model's own head returns."""
    streams: Tensor
    """[2 layers + 1, lanes, hidden]: the residual stream before attention 0 and after attention 0,
    MLP 0, attention 1, …; zeros in a lane whose model has another depth than lane 0's, and no
    numbers where the stream is not known."""
