"""Greedy texts of all lanes over the lockstep, each lane reading its own tokens."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from ..decode.lockstep import Lockstep
from ..decode.prepared_lanes import PreparedLanes
from ..errors import UserError
from ..measure.output_drift import measure_drift, measure_kl
from ..measure.top_k import topk
from ..model.context_length import context_length
from ..model.generation import end_tokens
from ..model.outputs import Outputs
from ..out_of_memory import guard_memory
from .lanes import EvaluatedLanes
from .requests import Continuation, Continuations, Prompt
from .shared_caches import SharedCaches
from .stop_sequences import StopSequences


class LaneGenerator:
    """Goes on from prompts greedily in all lanes, as `generate` of transformers from one text.

    A lane stops with an end token, with a stop sequence, after `max_new_tokens`, where the model's
    context is full, and before a token that logits without numbers would choose. Prompts that begin
    with the same tokens as the one before them share what is in the caches.

    The lockstep is built and proven at the first call and on the models only during a call.
    """

    def __init__(self, lanes: EvaluatedLanes) -> None:
        self._lanes = lanes
        self._prepared: PreparedLanes | None = None
        self._end_tokens = end_tokens(lanes.loaded.model, lanes.loaded.tokenizer)
        self._context_length = context_length(lanes.loaded.model)

    def generate(
        self, prompts: Sequence[Prompt], report: Callable[[float], None]
    ) -> list[Continuations]:
        """Go on from prompts of at least one token; `report` gets the fraction that is done.

        Raises `UserError` for a model that cannot be decoded, for a prompt that is longer than its
        context, and if memory runs out.
        """
        if not prompts:
            return []
        longest = max(len(prompt.tokens) + self._room(prompt) for prompt in prompts)
        with (
            guard_memory(
                f"out of memory while generating texts of up to {longest} tokens, the prompt "
                f"included, in {len(self._lanes.models)} lanes; fewer variants or shorter prompts "
                "need less"
            ),
            self._lockstep([*prompts[0].tokens]) as lockstep,
        ):
            caches = SharedCaches(lockstep, longest)
            continued = []
            for index, prompt in enumerate(prompts):
                continued.append(self._continue(prompt, caches))
                report((index + 1) / len(prompts))
        return continued

    @contextmanager
    def _lockstep(self, tokens: list[int]) -> Iterator[Lockstep]:
        """The lockstep on the models; the noise floor of a new one is measured on `tokens`."""
        if self._prepared is None:
            lanes = self._lanes
            self._prepared = PreparedLanes(
                lanes.models, "free", tokens, lanes.progress, graphs=lanes.options.graphs
            )
        try:
            # No change where it has just been built.
            self._prepared.install()
            yield self._prepared.lockstep
        finally:
            self._prepared.remove()
            self._prepared.lockstep.clear()

    def _room(self, prompt: Prompt) -> int:
        """Tokens that can be generated before the context is full."""
        limit, length = self._context_length, len(prompt.tokens)
        if limit is None:
            return prompt.max_new_tokens
        if length > limit:
            raise UserError(
                f"a prompt has {length} tokens and the model's context {limit}; shorten it"
            )
        return min(prompt.max_new_tokens, limit - length)

    def _continue(self, prompt: Prompt, caches: SharedCaches) -> Continuations:
        stops = StopSequences(prompt.until, self._lanes.loaded.tokenizer)
        first = caches.read(prompt.tokens)
        lanes = self._decode(first, caches, stops, self._room(prompt))
        baseline = lanes[0].tokens
        # What the baseline chose last is read by no lane.
        kl = [measure_kl(first.z), *caches.local_kl(baseline[:-1])] if baseline else []
        kl_by_variant = [*zip(*kl, strict=True)] or [()] * (len(lanes) - 1)
        return Continuations(
            lanes=[
                Continuation(
                    tokens=lane.tokens,
                    text=stops.cut_text(lane.tokens),
                    divergence=_first_difference(lane.tokens, baseline),
                    kl=_mean(local),
                )
                for lane, local in zip(lanes, [(), *kl_by_variant], strict=True)
            ],
            drift=measure_drift(first),
        )

    @torch.inference_mode()
    def _decode(
        self, outputs: Outputs, caches: SharedCaches, stops: StopSequences, room: int
    ) -> "list[LaneTokens]":
        """Decode from a prompt's outputs, `room` tokens at most, until all lanes have stopped."""
        lanes = [LaneTokens() for _ in self._lanes.models]
        for step in range(room):
            if step:
                # A lane that has stopped reads any token.
                outputs = caches.step([lane.tokens[-1] if lane.tokens else 0 for lane in lanes])
            highest, tokens = topk(outputs.z, 1)
            # NaN counts as the highest, and any number is above minus infinity.
            chosen = torch.where(highest.isfinite(), tokens, -1)[:, 0].tolist()
            for lane, token in zip(lanes, chosen, strict=True):
                self._extend(lane, token, stops)
            if not any(lane.running for lane in lanes):
                break
        return lanes

    def _extend(self, lane: "LaneTokens", token: int, stops: StopSequences) -> None:
        """Add a token to a lane that runs; -1 stands for none."""
        if not lane.running:
            return
        if token >= 0:
            lane.tokens.append(token)
        lane.running = (
            token >= 0 and token not in self._end_tokens and not stops.reached(lane.tokens)
        )


@dataclass
class LaneTokens:
    """Tokens that one lane has generated, and whether it goes on."""

    tokens: list[int] = field(default_factory=list)
    running: bool = True


def _first_difference(tokens: list[int], baseline: list[int]) -> int | None:
    """Index of the first token that differs from the baseline's; where one ends and the other goes
    on, it differs."""
    if tokens == baseline:
        return None
    pairs = enumerate(zip(tokens, baseline, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(tokens), len(baseline)))


def _mean(numbers: Sequence[float | None]) -> float | None:
    """Mean; None of no numbers, and where one is missing."""
    if not numbers or None in numbers:
        return None
    return math.fsum(number for number in numbers if number is not None) / len(numbers)
