"""The residual stream after every sublayer, taken from a running model by hooks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .anatomy import Anatomy, Layer
from .gates import first_tensor

Keep = Callable[[int, Tensor], None]
"""Called with a point's number and the stream there, [rows, positions, hidden]."""


class StreamHooks:
    """Calls `keep` at each point of the residual stream as the model runs, in order.

    Point 3l is the input of layer l, 3l + 1 the stream after its attention, 3l + 2 after its MLP.
    Where attention and MLP run in parallel on the same input x, the stream after the attention
    is x plus what the attention adds. Made after the gates, the hooks see what the gates leave.
    """

    def __init__(self, anatomy: Anatomy, keep: Keep) -> None:
        self._keep = keep
        self._handles: list[RemovableHandle] = []
        for number, layer in enumerate(anatomy.layers):
            self._watch(number, layer)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _watch(self, number: int, layer: Layer) -> None:
        start = torch.empty(0)

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal start
            start = args[0] if args else kwargs["hidden_states"]
            self._keep(3 * number, start)

        def middle(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stream = args[0] if args else kwargs["hidden_states"]
            self._keep(3 * number + 1, stream.reshape(start.shape))

        def branch(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            added = first_tensor(output)
            # The layer's input can still be where the layer before it is.
            self._keep(3 * number + 1, start.to(added.device) + added)

        def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            nonlocal start
            start = torch.empty(0)  # so that a long prompt's activations are let go
            self._keep(3 * number + 2, first_tensor(output))

        handles = self._handles
        handles.append(layer.module.register_forward_pre_hook(before, with_kwargs=True))
        if layer.middle is None:
            handles.append(layer.attention.register_forward_hook(branch))
        else:
            handles.append(layer.middle.register_forward_pre_hook(middle, with_kwargs=True))
        handles.append(layer.module.register_forward_hook(after))
