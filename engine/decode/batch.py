"""One weight group's rows: a cache, a step, and the gates of the rows."""

import torch
from torch import Tensor, nn

from ..model.dropped import Dropped
from ..model.outputs import Outputs
from ..model.rope import ChangingRope
from ..model.weight_group import WeightGroup
from .fixed_cache import empty, new_fixed_cache, room_for, room_of
from .kv_cache import TokenLayer, is_recurrent, new_cache
from .steps import ForwardPass, StaticStep, Step, choose_static_step, choose_step


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
        position: Tensor | None,
        reread: bool,
    ) -> None:
        """`lanes`: int64 [rows], the lane of each row; `dropped`: what each row drops; `position`,
        int64 [1], is where static steps write: the cache then is of fixed room."""
        self.group = group
        self.lanes = lanes
        self._reread = reread
        self._position = position
        self._capacity = 0
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
        self._static: StaticStep | None = None

    def install(self) -> None:
        self._step = choose_step(self.group, self._closed, self.cache, self._forward_pass)
        self._forward_pass.install()

    def remove(self) -> None:
        # A step of our own holds the weights as they were prepared.
        self._step = self._forward_pass
        self._static = None
        self._forward_pass.remove()

    @property
    def rereads(self) -> bool:
        """Whether every step reads all tokens again."""
        return isinstance(self.cache.layers[0], TokenLayer)

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values that the last step has read."""
        return (self._static or self._step).cache_bytes(self.cache)

    def clear(self, capacity: int) -> None:
        """Start again with an empty cache with memory for so many positions."""
        self._capacity = capacity
        if self._position is None:
            self.cache = new_cache(self.group.model, self._reread, capacity)
        elif room_of(self.cache) == room_for(capacity):
            empty(self.cache)
        else:
            self._static = None
            self.cache = new_fixed_cache(self.group.model, room_for(capacity), self._position)

    def advance(self, tokens: Tensor, length: int) -> Outputs:
        """Read int64 [rows, positions] after the `length` positions in the cache."""
        tokens = tokens.to(self.group.model.device)
        if self.rope.limit is not None:
            self.rope.forget()
            self.tokens = torch.cat([self.tokens[:, :length], tokens], dim=1)
            if length and self.rope.crosses(length, length + tokens.shape[1]):
                self.clear(self._capacity)
                tokens, length = self.tokens, 0
        # A step of fixed room is told to read, and is no way to read a prompt.
        one_by_one = tokens.shape[1] == 1 and self._position is None
        step = self._step if one_by_one else self._forward_pass
        return step(tokens, self.cache, length)

    def logits(self, tokens: Tensor, length: int) -> Tensor:
        """Read int64 [rows, positions] after the `length` positions in the cache; return the logits
        of every position, [rows, positions, vocabulary]. Only where a text can be read in parts."""
        return self._forward_pass.logits(tokens.to(self.group.model.device), self.cache, length)

    def static_step(self) -> StaticStep:
        """The step that reads at the position of a cache of fixed room, which has a text."""
        assert self._position is not None
        if self._static is None:
            self._static = choose_static_step(
                self.group, self._closed, self.cache, self._forward_pass, self._position
            )
        return self._static
