"""What a compiled function is told: numbers and the addresses of tensors."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import openmp

KIND, ROWS, INPUT, OUTPUT, FIRST = range(5)
"""Fields of every task; a kind's own begin at `FIRST`."""
PRODUCT, TURN, ATTENTION, JOIN, MAXIMA, HIGHEST, SUMS, DOTS, NARROW, WIDEN = range(10)


@dataclass(frozen=True)
class Task:
    fields: np.ndarray
    """int64."""
    held: tuple[object, ...]
    """All that the fields have addresses of."""


def readable(tensor: Tensor) -> bool:
    """Whether compiled functions can read a tensor as it lies."""
    return (
        openmp.available()
        and tensor.device == torch.device("cpu")
        and tensor.dtype in (torch.float32, torch.bfloat16)
        and tensor.is_contiguous()
    )


def address(tensor: Tensor | None) -> int:
    """0 of none."""
    return 0 if tensor is None else tensor.data_ptr()
