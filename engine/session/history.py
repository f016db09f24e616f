"""Tokens of every branch, and which of them the caches hold."""

import itertools

import torch
from torch import Tensor

from ..decode.prepared_lanes import PreparedLanes
from ..decode.static_steps import Reduction
from ..model.outputs import Outputs
from ..out_of_memory import guard_memory
from ..progress import Progress
from ..trace.records import Step
from ..trace.trace import Trace

READING = "reading the prompt"


class TokenHistory:
    """Tokens that the lanes chose on every branch of a trace, and the outputs that follow them.

    It knows which of these tokens the caches hold, so that only what is missing is read.
    """

    def __init__(self, lanes: PreparedLanes, trace: Trace, progress: Progress) -> None:
        """Read the prompt; the trace's steps are read when outputs after them are asked for.

        Raises `UserError` if memory runs out.
        """
        self._lanes = lanes
        self._trace = trace
        self._progress = progress
        self._first = self._read_prompt()
        self._chosen: list[list[Tensor]] = []
        """For every branch, the tokens that the lanes chose at each step, int64 [lanes] on the
        baseline's device; branches that share a step share its tensor."""
        self._cached: list[Tensor] | None = []
        """Tokens in the caches after the prompt; None if that is not known."""
        self._ahead: Outputs | None = None
        """The outputs after the tokens in the caches, while nothing else has been read."""
        tensors: dict[int, Tensor] = {}
        for steps in trace.branches:
            self._chosen.append(
                [tensors.setdefault(id(step), self._tensor(_tokens(step))) for step in steps]
            )

    def append(self, chosen: Tensor) -> None:
        """Add what the lanes chose at the next step, int64 [lanes]."""
        self._chosen[self._trace.branch].append(chosen)

    def rewind(self, to: int) -> None:
        """Take back all but the first `to` steps of the branch."""
        self._chosen[self._trace.branch] = self._chosen[self._trace.branch][:to]

    def fork(self, parent: int, at: int) -> None:
        """Add a branch that begins with the first `at` steps of another."""
        self._chosen.append(self._chosen[parent][:at])

    def forget_caches(self) -> None:
        """Mark the caches as unknown after an error: the next outputs read from the prompt on."""
        self._cached = self._ahead = None

    @torch.inference_mode()
    def outputs_before(self, step: int, reduction: Reduction | None = None) -> Outputs:
        """Read the tokens before a step into the caches; return the outputs it chooses from.

        Those of a static step come with what the reduction made of them.
        """
        if step == 0:
            return self._first
        chosen = self._chosen[self._trace.branch][:step]
        lockstep = self._lanes.lockstep
        cached = self._known_tokens()
        ahead, self._ahead = self._ahead, None
        if ahead and cached and len(cached) == step == _shared_prefix(cached, chosen):
            return ahead
        # The last token is read for its outputs in any case.
        prefix = _shared_prefix(cached or [], chosen[:-1])
        prompt = len(self._trace.header.prompt.tokens)
        if cached is None or (prefix < len(cached) and not lockstep.crop(prompt + prefix)):
            self._prefill()
            prefix = 0
        *before, last = [self._rows(tokens) for tokens in chosen[prefix:]]
        # One by one, as they were decoded: read together they would be rounded otherwise, and a
        # step after them would have other last digits, in 16 bits another token.
        for number, tokens in enumerate(before):
            self._progress("reading the steps before", number / len(before))
            lockstep.advance(tokens)
        outputs = lockstep.advance(last, reduction, step)
        self._cached = chosen
        return outputs

    @torch.inference_mode()
    def read_ahead(self, chosen: Tensor, reduction: Reduction) -> None:
        """Begin to read what the lanes chose from the outputs before a step, int64 [lanes], before
        it is appended; the outputs wait for the step after it. Not at step 0, whose outputs need
        not be those after the caches."""
        assert self._cached is not None
        step = len(self._cached) + 1
        self._ahead = self._lanes.lockstep.advance(self._rows(chosen), reduction, step)
        self._cached = [*self._cached, chosen]

    def outputs_again(self, step: int) -> Outputs:
        """The outputs that a recorded step chose from; the caches stay as they are if they can."""
        if step == 0:
            return self._first
        chosen = self._chosen[self._trace.branch][:step]
        cached = self._known_tokens()
        # Another token's keys and values there would be another branch's: they are written over.
        shared = _shared_prefix(cached or [], chosen)
        if cached is not None and shared == min(step, len(cached)) >= step - 1:
            self._ahead = None
            positions = len(self._trace.header.prompt.tokens) + step - 1
            outputs = self._lanes.lockstep.advance_from(positions, self._rows(chosen[-1]))
            if outputs is not None:
                return outputs
        return self.outputs_before(step)

    def _known_tokens(self) -> list[Tensor] | None:
        """Tokens in the caches after the prompt; None if something else has been read there."""
        lockstep = self._lanes.lockstep
        same_caches = (lockstep, lockstep.prefill_count) == self._prefilled
        return self._cached if same_caches else None

    def _read_prompt(self) -> Outputs:
        self._progress(READING, None)
        tokens, rows = self._trace.header.prompt.tokens, self._lanes.lockstep.row_count
        with guard_memory(
            f"out of memory while reading the prompt of {len(tokens)} tokens in {rows} lanes; "
            "a shorter one or fewer variants need less"
        ):
            outputs = self._prefill()
        # Kept for every rewind to the start; h is a view of what the whole prompt has made.
        return Outputs(outputs.h.clone(), outputs.z, outputs.streams)

    def _prefill(self) -> Outputs:
        lockstep, header = self._lanes.lockstep, self._trace.header
        rows = self._tensor(header.prompt.tokens).repeat(lockstep.row_count, 1)
        # A trace that is resumed can have more steps than may be decoded now.
        longest = max(map(len, self._trace.branches))
        outputs = lockstep.prefill(
            rows,
            max(header.sampling.max_new_tokens, longest),
            lambda done: self._progress(READING, done),
        )
        self._prefilled = lockstep, lockstep.prefill_count
        return outputs

    def _rows(self, chosen: Tensor) -> Tensor:
        """Tokens that the rows read after the lanes chose these: int64 [rows, 1]."""
        context = self._trace.header.context
        if context == "forced":
            chosen = chosen[:1].expand_as(chosen)
        elif context == "both":
            chosen = torch.cat([chosen, chosen[:1].expand(len(chosen) - 1)])
        return chosen[:, None]

    def _tensor(self, tokens: list[int]) -> Tensor:
        device = self._lanes.models[0].group.model.device
        return torch.tensor(tokens, dtype=torch.int64, device=device)


def _tokens(step: Step) -> list[int]:
    """What the lanes chose; a lane that has ended reads any token."""
    return [0 if token is None else token.token for token in step.lanes]


def _shared_prefix(a: list[Tensor], b: list[Tensor]) -> int:
    """How many of the first tensors are the same objects."""
    pairs = zip(a, b, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] is pair[1], pairs))
