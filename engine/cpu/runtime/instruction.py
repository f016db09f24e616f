"""Instructions of compiled kernels: integers and the addresses of tensors."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import openmp

KIND, ROWS, INPUT, OUTPUT, FIRST = range(5)
"""Indices of the fields of every instruction; a kind's own begin at `FIRST`."""
LINEAR, ROTATE, ATTENTION, JOIN, BLOCK_MAXIMA = range(5)
TOP_K, LOGIT_SUMS, LANE_PRODUCTS, PACK, UNPACK = range(5, 10)


@dataclass(frozen=True)
class Instruction:
    """One kernel and its operands."""

    fields: np.ndarray
    """int64."""
    references: tuple[object, ...]
    """All objects whose addresses are in the fields."""


def is_readable(tensor: Tensor) -> bool:
    """Whether compiled functions can read a tensor as it lies."""
    return (
        openmp.available()
        and tensor.device == torch.device("cpu")
        and tensor.dtype in (torch.float32, torch.bfloat16)
        and tensor.is_contiguous()
    )


def address(tensor: Tensor | None) -> int:
    """The address of a tensor's numbers; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()
