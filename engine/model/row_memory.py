"""How much memory reading a text takes in each row, measured on a short one, and how many rows fit.

Sizes are in bytes.
"""

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from ..errors import UserError
from ..foreign import foreign_code
from .attention import STOCK_ATTENTION
from .device_memory import cards, in_units
from .installed import InstalledHooks
from .memory import available_memory
from .weight_group import WeightGroup

MEASURED_POSITIONS = 16
FREE_SHARE = 0.5
"""Part of the free memory that a batch may take: allocators need more than what lives in them."""
USEFUL_POSITIONS = 2048
"""Positions of all rows together from which on a larger batch is no faster on a CPU."""
SCORE_COPIES = 3
"""Matrices of scores that attention makes where no kernel keeps them from memory: the scores,
masked, and after softmax in float32."""
CONSUMER_COPIES = 3
"""Copies of a row's logits in float64 that the measures make."""
GPU_WORKSPACE = 32 << 20
"""Bytes at most that operations on a GPU take beside what they return: cuBLAS on Hopper."""


@dataclass(frozen=True)
class RowSize:
    """What a row takes."""

    position: float
    """For each position, while a layer runs."""
    score: float
    """For each pair of positions."""
    logit: float
    """For each logit that is needed, with what the model does to it."""
    vocabulary: int


@torch.inference_mode()
def measure_row(group: WeightGroup) -> RowSize:
    """Read a short text and count what lives at most. Raises `UserError` if the model cannot."""
    model = group.model
    tokens = torch.arange(MEASURED_POSITIONS, device=model.device)[None]
    with (
        foreign_code(f"this {model.config.model_type} model does not read text alone"),
        LiveBytes() as live,
        _PeakBefore(group.anatomy.head, live) as before_head,
    ):
        z: Tensor = model(input_ids=tokens, use_cache=False).logits
    return RowSize(
        position=before_head.peak / MEASURED_POSITIONS,
        score=_score_bytes(model),
        logit=(live.peak - before_head.live) / z.numel(),
        vocabulary=z.shape[-1],
    )


def _score_bytes(model: PreTrainedModel) -> float:
    """What attention takes for a pair of positions."""
    config: Any = model.config.get_text_config()
    in_kernel = STOCK_ATTENTION in config._attn_implementation or (
        "flash" in config._attn_implementation
    )
    # A bias of every head is a matrix of its own.
    if in_kernel and not getattr(config, "alibi", False):
        return 0.0
    return SCORE_COPIES * 4.0 * config.num_attention_heads


class RowMemory:
    """What reading a text in rows takes, and what is free for it now."""

    def __init__(self, group: WeightGroup, size: RowSize, positions: int, needed: int) -> None:
        self._size, self._positions, self._needed = size, positions, needed
        self._device = group.model.device
        self._free = _free_memory(group.model)
        self.row = self._of_row(positions)
        """Bytes of each row."""
        workspace = GPU_WORKSPACE if self._device.type == "cuda" else 0
        self.beside = CONSUMER_COPIES * 8 * needed * size.vocabulary + workspace
        """Bytes that are taken whatever the number of rows: for the logits of one row, and by
        operations."""

    def rows_at_once(self, rows: int) -> int:
        """How many of so many rows to read at once. Raises `UserError` if not even one fits."""
        fit = rows
        if self._free is not None:
            fit = int((self._free * FREE_SHARE - self.beside) / self.row)
        if fit < 1:
            raise self.refusal()
        useful = rows
        if self._device.type == "cpu":
            useful = max(1, USEFUL_POSITIONS // self._positions)
        return min(rows, fit, useful)

    def refusal(self) -> UserError:
        """An error whose sentence says what would fit."""
        free = self._free or 0
        longest = bisect.bisect_right(
            range(1, self._positions),
            free * FREE_SHARE,
            key=lambda positions: self._of_row(positions) + self.beside,
        )
        # Where less is free than it seemed.
        longest = min(longest, self._positions // 2)
        remedy = f"a text of {longest:,} tokens would fit" if longest else "a smaller model may fit"
        return UserError(
            f"there is no memory to read a text of {self._positions:,} tokens: it takes "
            f"{in_units(self.row + self.beside)}, and {in_units(free)} are free; {remedy}"
        )

    def _of_row(self, positions: int) -> float:
        needed = math.ceil(self._needed * positions / self._positions)
        size = self._size
        layers = size.position * positions + size.score * positions**2
        return layers + size.logit * needed * size.vocabulary


def _free_memory(model: PreTrainedModel) -> int | None:
    """What is free on the fullest of the devices of a model; None if that is not known."""
    devices = {parameter.device for parameter in model.parameters()}
    gpus = {device.index or 0 for device in devices if device.type == "cuda"}
    free: list[int] = [card.free for card in cards(gpus)]
    if any(device.type == "cpu" for device in devices):
        available = available_memory()
        free += [] if available is None else [available]
    return min(free, default=None)


class LiveBytes(TorchDispatchMode):
    """Mode that counts what operations allocate, as long as it lives."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self._sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = {*_storages((args, kwargs))}
        output = func(*args, **(kwargs or {}))
        self._sizes = {
            storage: size for storage, size in self._sizes.items() if not storage.expired()
        }
        self._sizes |= {
            storage: size for storage, size in _storages(output).items() if storage not in given
        }
        self.live = sum(self._sizes.values())
        self.peak = max(self.peak, self.live)
        return output


def _storages(tree: Any) -> dict[StorageWeakRef, int]:
    """The storages of the tensors in a tree, and their sizes."""
    storages = (x.untyped_storage() for x in tree_leaves(tree) if isinstance(x, Tensor))
    return {StorageWeakRef(storage): storage.nbytes() for storage in storages}


class _PeakBefore(InstalledHooks):
    """A hook that takes what lives when a module is called, and what lived at most before."""

    def __init__(self, module: nn.Module, live: LiveBytes) -> None:
        super().__init__()
        self._module, self._count = module, live
        self.live, self.peak = 0, 0

    def _register(self) -> Iterator[RemovableHandle]:
        yield self._module.register_forward_pre_hook(self._take)

    def _take(self, *_: object) -> None:
        self.live, self.peak = self._count.live, self._count.peak
        self._count.peak = self.live
