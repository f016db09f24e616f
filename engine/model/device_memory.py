"""How much memory a model needs, how much the GPUs have, and the sentence where that is too little.

Sizes are in bytes; sentences give them in GB of 10⁹ bytes, as files do.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import torch

from ..errors import UserError
from .checkpoint_files import CheckpointFiles

MARGIN = 1.1
"""A model is said to fit where there is room for its weights and a tenth more, for caches and what
a step computes."""


class TooBigError(UserError):
    """Lack of memory for a model's weights."""


@dataclass(frozen=True)
class Card:
    """A GPU and its memory."""

    name: str
    """Name of the card as --device takes it: cuda:0."""
    free: int
    """What this process can still allocate."""
    total: int


@dataclass(frozen=True)
class Need:
    """What the weights of a model need."""

    weights: int
    dtype: torch.dtype | None
    """None if the files say in what they are decoded."""
    beside: int = 0
    """What the models loaded before it take on the same GPUs."""
    shared: bool = False
    """Whether weights that equal the baseline's need nothing."""


def cards(indices: Iterable[int]) -> list[Card]:
    """GPUs by their indices; one that cannot be asked, as a full one cannot, has nothing free."""
    answers = []
    for index in indices:
        try:
            free, total = torch.cuda.mem_get_info(index)
            free += torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
        except RuntimeError:
            free, total = 0, torch.cuda.get_device_properties(index).total_memory
        answers.append(Card(f"cuda:{index}", free, total))
    return answers


def free_on(cards: Iterable[Card]) -> str:
    """Clauses, each after a semicolon, of what is free on each GPU."""
    return "".join(
        f"; {card.name} has {_gb(card.free)} of {_gb(card.total)} free" for card in cards
    )


def weights_to_load(files: CheckpointFiles, dtype: torch.dtype | None) -> int:
    """The size of a checkpoint's weights once they are loaded in `dtype`, or as they are stored."""
    return sum(
        tensor.size
        if dtype is None or tensor.dtype is None
        else math.prod(tensor.shape) * dtype.itemsize
        for tensor in files.tensors.values()
    )


def lack_of_memory(
    name: str,
    files: CheckpointFiles,
    dtype: torch.dtype | None,
    indices: Collection[int],
    *,
    shared: bool = False,
) -> Callable[[], str]:
    """A function of the sentence for a model that turns out not to fit on GPUs, by their indices.

    What is free on them is measured now, before anything of the model is there; other GPUs are
    asked for the sentence alone, as each takes some memory to answer.
    """
    places, beside = cards(indices), sum(map(torch.cuda.memory_allocated, indices))
    need = Need(weights_to_load(files, dtype), dtype, beside, shared)

    def sentence() -> str:
        others = set(range(torch.cuda.device_count())).difference(indices) if indices else ()
        return does_not_fit(name, need, places, cards(sorted(others)))

    return sentence


def does_not_fit(name: str, need: Need, places: Sequence[Card], others: Sequence[Card]) -> str:
    """A sentence: what the model needs, what is free on each GPU, and what would fit.

    `places` are the GPUs that it was loaded to, none for a CPU; `others` are the rest.
    """
    where = " and ".join(card.name for card in places)
    dtype = f" in {_name(need.dtype)}" if need.dtype else ""
    beside = f", beside {_gb(need.beside)} of the models before it" if need.beside else ""
    remedies = " or ".join(_remedies(need, places, others)) or "only a smaller model fits"
    return (
        f"{name} does not fit into {f'the memory of {where}' if where else 'memory'}: its weights "
        f"need {'up to ' if need.shared else ''}{_gb(need.weights)}{dtype}{beside}"
        f"{free_on([*places, *others])}; {remedies}"
    )


def _remedies(need: Need, places: Sequence[Card], others: Sequence[Card]) -> list[str]:
    """Options of the command line with which the model would fit, those that change least first."""
    whole = need.weights + need.beside
    own = sum(card.free for card in places) + need.beside
    together = own + sum(card.free for card in others)
    half = "--dtype bfloat16 needs half" if need.dtype == torch.float32 else ""
    if not places:
        return [half] if half else []
    roomiest = max(others, key=lambda card: card.free, default=None)
    room = roomiest.free if roomiest else 0
    device = f"--device {roomiest.name}" if roomiest else ""
    spread = "--device-map auto"
    remedies = []
    if half and whole / 2 * MARGIN <= own:
        remedies.append(half)
    if whole * MARGIN <= room:
        remedies.append(f"{device} has room")
    if others and whole * MARGIN <= together:
        remedies.append(f"{spread} spreads it over all GPUs")
    if not remedies and half:
        if whole / 2 * MARGIN <= room:
            remedies.append(f"{half}, for which {device} has room")
        elif others and whole / 2 * MARGIN <= together:
            remedies.append(f"{half}, which {spread} spreads over all GPUs")
    return remedies


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def in_units(size: float) -> str:
    """Text of a size, in MB below a GB."""
    return _gb(size) if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
