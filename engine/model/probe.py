"""A short forward pass of a model, of whose modules the inputs and outputs are recorded."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from ..foreign import foreign_code
from .gates import first_tensor
from .installed import InstalledHooks

ROWS, POSITIONS = 3, 4
"""The shape of the tokens that are read; all rows are equal."""


@torch.inference_mode()
def read_tokens(model: PreTrainedModel) -> None:
    """Run a model on a few tokens. Raises `UserError` if it does not read text alone."""
    tokens = torch.arange(1, 1 + POSITIONS, device=model.device).repeat(ROWS, 1)
    with foreign_code(f"this {model.config.model_type} model does not read text alone"):
        model(input_ids=tokens, use_cache=False)


class Recording(InstalledHooks):
    """Hooks that record the inputs and outputs of modules while `read_tokens` runs."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self._modules = {*modules}
        self.inputs: dict[nn.Module, Tensor] = {}
        """[ROWS, -1] of the first input, where it has one vector for each position."""
        self.outputs: dict[nn.Module, Tensor] = {}
        """[ROWS, -1] of the first output, where it has one vector for each position."""
        self.runs: Counter[nn.Module] = Counter()

    def _register(self) -> Iterator[RemovableHandle]:
        for module in self._modules:
            yield module.register_forward_hook(self._record, with_kwargs=True)

    def _record(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        self.runs.update([module])
        first_input = args[0] if args else kwargs.get("hidden_states")
        # A module that is no layer may return an empty tuple.
        empty = isinstance(output, tuple | list) and not output
        first_output = None if empty else first_tensor(output)
        for value, rows in ((first_input, self.inputs), (first_output, self.outputs)):
            if not isinstance(value, Tensor):
                continue
            # OPT folds rows and positions into one dimension.
            if value.shape[:2] == (ROWS, POSITIONS) or value.shape[:1] == (ROWS * POSITIONS,):
                rows[module] = value.reshape(ROWS, -1)


def is_same(x: Tensor | None, y: Tensor | None) -> bool:
    """Whether two recorded tensors are bitwise equal; NaN, as broken weights make, equals NaN."""
    if x is None or y is None or x.shape != y.shape:
        return False
    # A layer's input can still be on the device of the layer before.
    x = x.to(y.device)
    return bool(((x == y) | ((x != x) & (y != y))).all())
