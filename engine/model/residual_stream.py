"""Hooks that read a running model: the residual stream after every sublayer, and h."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .anatomy import Anatomy, Layer
from .gates import first_tensor
from .installed import InstalledHooks


class StreamHooks(InstalledHooks):
    """Hooks that pass the residual stream to `read` at each of its points, in order.

    `read` gets the point's index and the stream there, [rows, positions, hidden]. Point 0 is the
    input of layer 0, 2l + 1 the stream after the attention of layer l, 2l + 2 after its MLP. Where
    attention and MLP run in parallel on the same input x, the stream after the attention is x plus
    what the attention adds; where the layer does something else, that point is NaN. A model
    without one stream has no points. Install them after the gates, to see what the gates leave.
    """

    def __init__(self, anatomy: Anatomy, read: Callable[[int, Tensor], None]) -> None:
        super().__init__()
        self._anatomy = anatomy
        self._read = read
        self._stream = torch.empty(0)
        """The stream at the last point that was read."""

    def _register(self) -> Iterator[RemovableHandle]:
        if not self._anatomy.one_stream:
            return
        layers = self._anatomy.layers
        yield layers[0].module.register_forward_pre_hook(self._read_input, with_kwargs=True)
        for index, layer in enumerate(layers):
            yield from self._register_layer(index, layer)
        yield layers[-1].module.register_forward_hook(self._release)

    def _pass_on(self, point: int, stream: Tensor) -> None:
        self._stream = stream
        # Some models keep several vectors a position.
        self._read(point, stream.flatten(2))

    def _read_input(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._pass_on(0, args[0] if args else kwargs["hidden_states"])

    def _release(self, _module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        """Free the activations of a long prompt."""
        self._stream = torch.empty(0)

    def _register_layer(self, index: int, layer: Layer) -> Iterator[RemovableHandle]:
        def read_middle(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stream = args[0] if args else kwargs["hidden_states"]
            # OPT folds rows and positions into one dimension.
            self._pass_on(2 * index + 1, stream.reshape(self._stream.shape))

        def add_attention(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            added = first_tensor(output)
            # The layer's input can still be on the device of the layer before.
            self._pass_on(2 * index + 1, self._stream.to(added.device) + added)

        def read_output(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            stream = first_tensor(output)
            if not layer.has_known_middle:
                self._pass_on(2 * index + 1, stream.new_full((), torch.nan).expand_as(stream))
            self._pass_on(2 * index + 2, stream)

        if layer.parallel:
            yield layer.attention[0].register_forward_hook(add_attention)
        elif layer.middle is not None:
            yield layer.middle.register_forward_pre_hook(read_middle, with_kwargs=True)
        yield layer.module.register_forward_hook(read_output)


class HeadHook(InstalledHooks):
    """A hook that passes h, the head's input [rows, positions, hidden], to `read`."""

    def __init__(self, anatomy: Anatomy, read: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._head = anatomy.head
        self._read = read

    def _register(self) -> Iterator[RemovableHandle]:
        yield self._head.register_forward_pre_hook(lambda _module, args: self._read(args[0]))
