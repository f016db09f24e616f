"""What a compiled function is told: numbers and the addresses of tensors."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

KIND, ROWS, INPUT, OUTPUT, FIRST = range(5)
"""Fields of every task; a kind's own begin at `FIRST`."""
PRODUCT, ATTENTION = range(2)


@dataclass(frozen=True)
class Task:
    fields: np.ndarray
    """int64."""
    held: tuple[object, ...]
    """All that the fields have addresses of."""


def address(tensor: Tensor | None) -> int:
    """0 of none."""
    return 0 if tensor is None else tensor.data_ptr()
