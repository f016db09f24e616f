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

    Point 0 is the input of layer 0, 2l + 1 the stream after the attention of layer l, 2l + 2 after
    its MLP. Where attention and MLP run in parallel on the same input x, the stream after the
    attention is x plus what the attention adds; where the layer does something else, that point is
    not a number. Nothing is kept of a model that has no one stream. Made after the gates, the hooks
    see what the gates leave.
    """

    def __init__(self, anatomy: Anatomy, keep: Keep) -> None:
        self._keep = keep
        self._stream = torch.empty(0)
        """At the last point before."""
        self._handles: list[RemovableHandle] = []
        if not anatomy.one_stream:
            return
        first, last = anatomy.layers[0].module, anatomy.layers[-1].module
        self._handles.append(first.register_forward_pre_hook(self._before, with_kwargs=True))
        for number, layer in enumerate(anatomy.layers):
            self._watch(number, layer)
        self._handles.append(last.register_forward_hook(self._end))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _point(self, number: int, stream: Tensor) -> None:
        self._stream = stream
        # Some models keep several vectors a position.
        self._keep(number, stream.flatten(2))

    def _before(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._point(0, args[0] if args else kwargs["hidden_states"])

    def _end(self, _module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        self._stream = torch.empty(0)  # so that a long prompt's activations are let go

    def _watch(self, number: int, layer: Layer) -> None:
        def middle(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stream = args[0] if args else kwargs["hidden_states"]
            # OPT folds rows and positions into one dimension.
            self._point(2 * number + 1, stream.reshape(self._stream.shape))

        def branch(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            added = first_tensor(output)
            # The layer's input can still be where the layer before it is.
            self._point(2 * number + 1, self._stream.to(added.device) + added)

        def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            stream = first_tensor(output)
            if not layer.has_known_middle:
                self._point(2 * number + 1, stream.new_full((), torch.nan).expand_as(stream))
            self._point(2 * number + 2, stream)

        if layer.parallel:
            self._handles.append(layer.attention[0].register_forward_hook(branch))
        elif layer.middle is not None:
            self._handles.append(layer.middle.register_forward_pre_hook(middle, with_kwargs=True))
        self._handles.append(layer.module.register_forward_hook(after))
