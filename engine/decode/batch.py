"""One weight group's rows: a cache, a step, and the gates of the rows."""

import torch
from torch import Tensor, nn

from ..model.dropped import Dropped
from ..model.outputs import Outputs
from ..model.rope import ChangingRope
from ..model.weight_group import WeightGroup
from .kv_cache import TokenLayer, is_recurrent, new_cache
from .steps import ForwardPass, Step, choose_step


class Batch:
    """The lanes of one weight group: rows of one batch over one copy of the weights.

    Gates and hooks are on the model between `install` and `remove`.
    """

    def __init__(
        self,
        group: WeightGroup,
        lanes: Tensor,
        dropped: list[Dropped],
        *,
        reread: bool,
    ) -> None:
        """`lanes`: int64 [rows], the lane of each row; `dropped`: what each row drops."""
        self.group = group
        self.lanes = lanes
        self._reread = reread
        model = group.model
        self.cache = new_cache(model, reread)
        self.rope = ChangingRope(model)
        self.reads_in_parts = self.rope.limit is None and not is_recurrent(self.cache)
        """Whether a text read part by part leaves the same in the cache, but for rounding."""
        self.tokens = lanes.new_empty(len(lanes), 0).to(model.device)
        """All tokens in the cache, int64 [rows, positions], where they may have to be reread."""
        self._closed: dict[nn.Module, Tensor] = {}
        for number, layer in enumerate(group.anatomy.layers):
            attention = torch.tensor([number in lane.attention for lane in dropped])
            self._closed |= dict.fromkeys(layer.attention, attention)
            mlp = torch.tensor([number in lane.mlp for lane in dropped])
            self._closed |= dict.fromkeys(layer.mlp, mlp)
        self._forward_pass = ForwardPass(group, self._closed)
        self._step: Step = self._forward_pass

    def install(self) -> None:
        self._step = choose_step(self.group, self._closed, self.cache, self._forward_pass)
        self._forward_pass.install()

    def remove(self) -> None:
        # A step of our own holds the weights as they were prepared.
        self._step = self._forward_pass
        self._forward_pass.remove()

    @property
    def rereads(self) -> bool:
        """Whether every step reads all tokens again."""
        return isinstance(self.cache.layers[0], TokenLayer)

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values that the last step has read."""
        return self._step.cache_bytes(self.cache)

    def clear(self, capacity: int) -> None:
        """Start again with an empty cache with memory for so many positions."""
        self.cache = new_cache(self.group.model, self._reread, capacity)

    def advance(self, tokens: Tensor, length: int) -> Outputs:
        """Read int64 [rows, positions] after the `length` positions in the cache."""
        tokens = tokens.to(self.group.model.device)
        if self.rope.limit is not None:
            self.rope.forget()
            self.tokens = torch.cat([self.tokens[:, :length], tokens], dim=1)
            if length and self.rope.crosses(length, length + tokens.shape[1]):
                self.clear(length)
                tokens, length = self.tokens, 0
        step = self._step if tokens.shape[1] == 1 else self._forward_pass
        return step(tokens, self.cache, length)
