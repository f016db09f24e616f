"""Caches of all lanes over one prompt after another."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..decode.lockstep import PREFILL_CHUNK, Lockstep
from ..measure.output_drift import measure_kl
from ..model.outputs import Outputs
from .requests import Tokens

FORCED_CHUNK = 32
"""Positions whose logits in all lanes are in memory together."""


class SharedCaches:
    """The lockstep's caches, which keep what a prompt has in common with the one before it."""

    def __init__(self, lockstep: Lockstep, longest: int) -> None:
        """The caches get room for `longest` positions."""
        self._lockstep = lockstep
        self._longest = longest
        self._prompt: Tokens = ()
        """Prompt at the beginning of the caches."""

    def read(self, prompt: Tokens) -> Outputs:
        """Read a prompt in all lanes; return the outputs at its end."""
        lockstep = self._lockstep
        shared = _shared_prefix(self._prompt, prompt[:-1])
        if shared and lockstep.reads_in_parts and lockstep.crop(shared):
            *parts, last = self._rows(prompt[shared:]).split(PREFILL_CHUNK, dim=1)
            for part in parts:
                lockstep.advance(part)
            outputs = lockstep.advance(last)
        else:
            outputs = self._prefill(prompt)
        self._prompt = prompt
        # A static step overwrites its outputs, and h is a view of what the prompt has made.
        return Outputs(outputs.h.clone(), outputs.z.clone(), outputs.streams.clone())

    def step(self, tokens: Sequence[int]) -> Outputs:
        """Read one token per lane."""
        return self._lockstep.advance(torch.tensor(tokens)[:, None])

    def local_kl(self, tokens: Sequence[int]) -> list[list[float | None]]:
        """KL(p ‖ q) in nats, [positions, variants], after each of the tokens that all lanes read
        after the prompt."""
        lockstep = self._lockstep
        if not tokens:
            return []
        if not lockstep.crop(len(self._prompt)):
            self._prefill(self._prompt)
        if lockstep.reads_in_parts:
            parts = self._rows(tokens).split(FORCED_CHUNK, dim=1)
            positions = (z for part in parts for z in lockstep.logits(part))
        else:
            positions = (lockstep.advance(part).z for part in self._rows(tokens).split(1, dim=1))
        return [measure_kl(z) for z in positions]

    def _prefill(self, prompt: Tokens) -> Outputs:
        return self._lockstep.prefill(self._rows(prompt), self._longest - len(prompt))

    def _rows(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor(tokens).expand(self._lockstep.row_count, -1)


def _shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many of the first tokens are equal."""
    pairs = zip(a, b, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
