"""What a function on CUDA tensors brings to the host or from it, told from one on the CPU."""

# ruff: noqa: SLF001

import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

MAKERS = {"tensor", "as_tensor", "asarray", "new_tensor"}
"""Functions that make tensors of numbers on the host."""

FETCHES = {"cpu", "numpy", "tolist", "__array__", "__format__", "__repr__"}
"""Functions that bring numbers to the host, and say so to no operator."""

READING_KERNELS = {
    *("histc", "multinomial", "normal", "cholesky", "linalg_cholesky", "inverse", "linalg_inv"),
    *("linalg_solve", "linalg_eigh", "linalg_svd", "svd"),
}
"""Functions whose kernel for CUDA brings a number to the host."""

MASKS = (torch.bool, torch.uint8)

READING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

VALUE_READING = {
    *(aten.masked_fill.Tensor, aten.masked_fill_.Tensor),
    *(aten.index_fill.int_Tensor, aten.index_fill_.int_Tensor),
}
"""Operators that read their last argument, one number, on the host."""


class Transfers(TorchDispatchMode):
    """Mode that finds what a function reads of a device and copies to one, by its operators."""

    def __init__(self, on_host: list[Tensor]) -> None:
        super().__init__()
        self.reads = False
        self.copies = False
        self._on_host = on_host
        """The function's inputs on the host, and what it makes of them."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        # Lifted is what a function makes of numbers of its own.
        stays = func is aten.lift_fresh.default
        if self._on_host and (tensors := tensors_in((args, kwargs))):
            stays |= all(map(self._is_on_host, tensors))
        if not stays:
            self._note(func, args, kwargs)
        output = func(*args, **kwargs)
        if stays:
            self._on_host += tensors_in(output)
        return output

    def _is_on_host(self, tensor: Tensor) -> bool:
        return any(tensor is known for known in self._on_host)

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if func is aten.copy_.default:
            # What comes from the device is on the host now.
            self.copies |= self._is_on_host(args[1])
            self.reads |= self._is_on_host(args[0])
        elif func.overloadpacket in (aten.index, aten.index_put_):
            indices = [index for index in args[1] if index is not None]
            self.copies |= any(index.ndim and self._is_on_host(index) for index in indices)
            # Only the device knows what a mask picks; but one number is written as it is.
            written = [] if func.overloadpacket is aten.index else [args[2]]
            self.reads |= any(index.dtype in MASKS for index in indices) and not any(
                value.ndim == 0 and self._is_on_host(value) for value in written
            )
        elif func in VALUE_READING:
            self.reads |= not self._is_on_host(args[-1])
        else:
            self.reads |= not READING.isdisjoint(func.tags) and kwargs.get("output_size") is None


@functools.cache
def is_composite(func: Any) -> bool:
    """Whether an operator is nothing but calls of others."""
    return func.namespace != "prim" and func._can_decompose()


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a function's arguments or output."""
    return [leaf for leaf in leaves_in(value) if isinstance(leaf, Tensor)]


def leaves_in(value: Any) -> list[Any]:
    """What is in nested lists, tuples and dictionaries; several times as fast as torch's own."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, tuple | list):
        return [value]
    return [leaf for part in value for leaf in leaves_in(part)]
