"""LLM-Drop's checkpoints, whose config.json lists the sublayers that were dropped."""

from typing import Any

from ..errors import UserError
from .dropped import Dropped

_KEYS = ("drop_attn_list", "drop_mlp_list")


def has_drop_lists(config: dict[str, Any]) -> bool:
    return any(config.get(key) for key in _KEYS)


def read_drop_lists(config: dict[str, Any], depth: int, name: str) -> Dropped:
    """The sublayers that a config of `depth` layers lists as dropped.

    Raises `UserError` for what is no list of layers, and for layers that do not exist.
    """
    return Dropped(*(_read_list(config.get(key), depth, f"{key} of {name}") for key in _KEYS))


def _read_list(value: Any, depth: int, what: str) -> frozenset[int]:
    """Layers given by index, or as one bool per layer."""
    entries = [] if value is None else value
    if not isinstance(entries, list) or not all(isinstance(entry, int) for entry in entries):
        raise UserError(f"{what} is {value!r}, which is no list of layers")
    layers = frozenset(
        index if isinstance(entry, bool) else entry
        for index, entry in enumerate(entries)
        if entry is not False
    )
    if layers and not (min(layers) >= 0 and max(layers) < depth):
        raise UserError(f"{what} is {value!r}, but the layers are 0 to {depth - 1}")
    return layers
