"""Hooks that report how far a forward pass has come."""

from collections.abc import Callable, Iterator, Sequence

from torch.utils.hooks import RemovableHandle

from ..model.anatomy import Anatomy
from ..model.installed import InstalledHooks


class LayerHooks(InstalledHooks):
    """Hooks that call `report` after every layer with the fraction that is done of all passes."""

    def __init__(
        self, anatomies: Sequence[Anatomy], passes: int, report: Callable[[float], None]
    ) -> None:
        """`passes`: number of forward passes of each model."""
        super().__init__()
        self._layers = [layer.module for anatomy in anatomies for layer in anatomy.layers]
        self._total = passes * len(self._layers)
        self._done = 0
        self._report = report

    def _register(self) -> Iterator[RemovableHandle]:
        for layer in self._layers:
            yield layer.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self._done += 1
        # A model may run a layer more than once.
        self._report(min(1.0, self._done / self._total))
