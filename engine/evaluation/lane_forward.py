"""What a forward pass of all lanes of one weight group gives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from .requests import Tokens
from .text_batches import Batch


@dataclass(frozen=True)
class StreamOutputs:
    """Outputs at the needed positions of a batch, of lanes whose residual streams are the same."""

    lanes: tuple[int, ...]
    h: Tensor
    """Inputs of the head [needed, hidden], in the model's dtype."""
    logits: Callable[[int, int], Tensor]
    """Logits [stop - start, vocabulary] of the needed positions `start` to `stop` - 1."""


class LaneForward(Protocol):
    """Forward passes of the lanes of one weight group; nothing stays on the model."""

    def read_prefix(self, tokens: Tokens) -> Any:
        """Read tokens that all texts begin with; what it returns goes to `read`."""
        ...

    def read(self, batch: Batch, prefix: Any, /) -> Iterator[StreamOutputs]:
        """Read a batch once for all lanes of which it gives the same, then for the next ones."""
        ...
