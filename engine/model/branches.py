"""Rows of a batch that share the layers before the first one in which they differ.

All rows read the same tokens. Rows that prune the same parts of the first layers are one *stream*
there: one row of the tensors. A stream branches at the input of the first layer in which its rows
differ, so no layer is computed twice for the same input.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .installed import InstalledHooks


class Streams:
    """Which rows are one stream, layer by layer."""

    def __init__(self, kinds: Sequence[Sequence[Hashable]], *, shared: bool) -> None:
        """`kinds` says of each row what it is like in each layer; without `shared`, every row is a
        stream of its own from the start."""
        count = len(kinds)
        of_row = [0] * count if shared else [*range(count)]
        self.first_rows: list[list[int]] = []
        """For each layer, the first row of each stream."""
        self.parents: list[list[int]] = []
        """For each layer, the stream of the layer before that each stream comes from."""
        for layer in range(len(kinds[0])):
            before, numbers = of_row, dict[Hashable, int]()
            keys = [(before[row], kinds[row][layer]) for row in range(count)]
            if shared:
                of_row = [numbers.setdefault(key, len(numbers)) for key in keys]
            first = [of_row.index(stream) for stream in range(max(of_row) + 1)]
            self.first_rows.append(first)
            self.parents.append([before[row] for row in first])
        self.of_row = of_row
        """The stream of each row after the last layer."""

    @property
    def fed(self) -> int:
        """Number of rows to feed to the model."""
        return 1 + max(self.parents[0])

    @property
    def work(self) -> int:
        """Number of streams, added up over the layers."""
        return sum(map(len, self.first_rows))


class Branches(InstalledHooks):
    """Hooks that branch streams at the input of layers, and report the streams of each layer when
    it is done."""

    def __init__(
        self, layers: Sequence[nn.Module], streams: Streams, report: Callable[[int], None]
    ) -> None:
        super().__init__()
        self._layers, self._streams, self._report = layers, streams, report

    def _register(self) -> Iterator[RemovableHandle]:
        width = self._streams.fed
        for layer, parents in zip(self._layers, self._streams.parents, strict=True):
            if parents != [*range(width)]:
                branch = _Branch(torch.tensor(parents))
                yield layer.register_forward_pre_hook(branch, with_kwargs=True)
            width = len(parents)
            yield layer.register_forward_hook(self._count(width))

    def _count(self, streams: int) -> Callable[..., None]:
        return lambda *_: self._report(streams)


class _Branch:
    def __init__(self, parents: Tensor) -> None:
        self._parents = parents

    def __call__(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (self._select(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": self._select(kwargs["hidden_states"])}

    def _select(self, hidden: Tensor) -> Tensor:
        return hidden.index_select(0, self._parents.to(hidden.device))
