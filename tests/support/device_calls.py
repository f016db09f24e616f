"""What is asked of the fake device: calls that launch work, copies from and to the host, and how
two steps differ.

A CUDA graph replays the calls of one step with their numbers and addresses; so it may replay a
step only if the next one would make equal calls.
"""

# Much of torch has no public name.
# ruff: noqa: SLF001

import functools
import itertools
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from .fake_device import FUSED, is_on_device, made_of
from .transfers import leaves_in, tensors_in

aten = torch.ops.aten


@dataclass(frozen=True)
class Call:
    """An operator that launches work, and what a graph would replay it with."""

    name: str
    arguments: tuple[str, ...]
    """Tensors by dtype, shape, strides and address, anything else as it is printed.

    An address is that of a tensor that was there before, or the number of a call's output.
    """
    line: str = field(compare=False)
    """The engine's line that made the call."""


class DeviceCalls(TorchDispatchMode):
    """Mode that records what is asked of the fake device, in inference mode.

    A call is an operator with a tensor on the device that neither is a view (all it returns are
    aliases of its arguments that it does not write) nor changes a tensor's shape alone, nor
    allocates alone. torch's composites count as what they call, but for those of `FUSED`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.copies: list[str] = []
        """Copies from the host to the device, each by operator and line."""
        self.fetches: list[str] = []
        """Copies from the device to the host."""
        self._addresses: dict[int, str] = {}
        self._storages: list[torch.UntypedStorage] = []
        """Those in `_addresses`: no other may come to lie where one was."""
        self._temporaries = itertools.count()
        self._numbers: set[int] = set()
        """Storages of numbers that would be on the host, were this CUDA."""

    @property
    def names(self) -> Counter[str]:
        """How often each operator was called."""
        return Counter(call.name for call in self.calls)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        make = made_of(func)
        if make and func not in FUSED:
            with self:
                return make(*args, **kwargs)
        leaves = leaves_in((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        launches = _launches(func)
        # Before the call, which may be the first to name a storage.
        arguments = tuple(map(self._describe, leaves)) if launches else ()
        if make:
            with self:
                output = make(*args, **kwargs)
        else:
            output = func(*args, **kwargs)
        outputs = tensors_in(output)
        for tensor in outputs:
            self._address(tensor, f"output {next(self._temporaries)}")
        if launches and any(map(is_on_device, [*tensors, *outputs])):
            self.calls.append(Call(str(func), arguments, _line()))
            self._note_copies(func, tensors, outputs)
        return output

    def _note_copies(self, func: OpOverload, tensors: list[Tensor], outputs: list[Tensor]) -> None:
        to_device = any(map(is_on_device, outputs))
        if func is aten.copy_.default:
            # A number without dimensions that is written to another is copied, or else an argument.
            numbers = tensors[0].ndim == 0 and tensors[1].untyped_storage()._cdata in self._numbers
            from_host = numbers or not is_on_device(tensors[1])
        else:
            from_host = any(
                not is_on_device(tensor) and (tensor.ndim or func is aten._to_copy.default)
                for tensor in tensors
            )
        if func is aten.scalar_tensor.default:
            self._numbers.add(outputs[0].untyped_storage()._cdata)
        if to_device and from_host:
            self.copies.append(f"{func} at {_line()}")
        if not to_device and outputs:
            self.fetches.append(f"{func} at {_line()}")

    def _describe(self, value: object) -> str:
        if not isinstance(value, Tensor):
            return repr(value)
        dtype = str(value.dtype).removeprefix("torch.")
        if not is_on_device(value):
            number = "" if value.ndim or isinstance(value, FakeTensor) else value.item()
            return f"{dtype}{[*value.shape]} {number} on the host"
        return (
            f"{dtype}{[*value.shape]} with strides {[*value.stride()]} at "
            f"{value.storage_offset()} of {self._address(value)}"
        )

    def _address(self, tensor: Tensor, name: str | None = None) -> str:
        """Name the tensor's memory, which has this name from now on if it has none."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._addresses:
            self._addresses[storage._cdata] = name or f"memory {storage._cdata:x}"
            self._storages.append(storage)
        return self._addresses[storage._cdata]


def replay_differences(first: DeviceCalls, second: DeviceCalls) -> list[str]:
    """What keeps a graph of the first step from standing for the second, one line per call."""
    lines = []
    if len(first.calls) != len(second.calls):
        lines.append(f"{len(first.calls)} calls, then {len(second.calls)}")
    for number, (a, b) in enumerate(zip(first.calls, second.calls, strict=False)):
        if a.name != b.name:
            # What follows is shifted.
            return [*lines, f"call {number}: {a.name} ({a.line}), then {b.name} ({b.line})"]
        pairs = itertools.zip_longest(a.arguments, b.arguments, fillvalue="nothing")
        if changes := [f"{x}, then {y}" for x, y in pairs if x != y]:
            lines.append(f"call {number}: {a.name} ({a.line}): {'; '.join(changes)}")
    return lines


@functools.cache
def _launches(func: OpOverload) -> bool:
    """Whether an operator launches work."""
    schema = func._schema
    aliases = [returned.alias_info for returned in schema.returns]
    is_view = bool(aliases) and all(alias and not alias.is_write for alias in aliases)
    return not (
        is_view
        or torch.Tag.inplace_view in func.tags
        or func.namespace == "prim"
        or func.overloadpacket in _NO_WORK
    )


_NO_WORK = {
    *(aten._unsafe_view, aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty),
    aten.new_empty_strided,
}
"""Operators that return new tensors and launch nothing."""


def _line() -> str:
    """The innermost line of the engine that is running."""
    frame = sys._getframe(1)
    while frame:
        path = frame.f_code.co_filename
        if "/engine/" in path and "site-packages" not in path:
            return f"{path[path.rindex('/engine/') + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside of the engine"
