"""Which sublayers a lane drops."""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Sublayer = Literal["attention", "mlp"]
SUBLAYERS: tuple[Sublayer, ...] = ("attention", "mlp")


@dataclass(frozen=True)
class Dropped:
    """Layers whose attention or MLP does not reach the residual stream; false if there are none."""

    attention: frozenset[int] = frozenset()
    mlp: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.attention or self.mlp)

    def __or__(self, other: "Dropped") -> "Dropped":
        return Dropped(self.attention | other.attention, self.mlp | other.mlp)

    def __sub__(self, other: "Dropped") -> "Dropped":
        return Dropped(self.attention - other.attention, self.mlp - other.mlp)

    def of(self, sublayer: Sublayer) -> frozenset[int]:
        return self.attention if sublayer == "attention" else self.mlp

    def with_layers(self, sublayer: Sublayer, layers: Iterable[int]) -> "Dropped":
        """Copy in which exactly these layers drop the sublayer."""
        return dataclasses.replace(self, **{sublayer: frozenset(layers)})

    @property
    def whole_layers(self) -> frozenset[int]:
        """Layers that drop both their sublayers."""
        return self.attention & self.mlp

    @property
    def lists(self) -> tuple[list[int], list[int]]:
        """Ascending layers of the dropped attentions and of the dropped MLPs."""
        return sorted(self.attention), sorted(self.mlp)

    def explains(self, missing: str) -> bool:
        """Whether a weight of this name belongs to a dropped sublayer or to the norm before it."""
        match = re.search(r"\.(\d+)\.(\w+)", missing)
        if match is None:
            return False
        layer, part = int(match[1]), match[2]
        return (layer in self.attention and part in ("self_attn", "input_layernorm")) or (
            layer in self.mlp and part in ("mlp", "post_attention_layernorm")
        )
