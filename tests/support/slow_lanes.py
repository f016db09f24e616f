"""Slow raters and generators: a whole forward pass of the stock model for each token."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from prunetui.engine.evaluation.requests import (
    Continuation,
    Continuations,
    Prompt,
    Rating,
    Request,
)
from prunetui.engine.trace.records import Drift
from prunetui.engine.variants.builder import LaneModel
from torch import Tensor

from tests.support.models import without_sublayers


class SlowLanes:
    """Lanes that read one text at a time, in float32, without a cache."""

    def __init__(self, models: Sequence[LaneModel], end: int) -> None:
        self._models = models
        self._end = end
        self.rated: list[Request] = []

    def rate(self, requests: Sequence[Request], report: Callable[[float], None]) -> list[Rating]:
        self.rated += requests
        report(1.0)
        return [self._rate(request) for request in requests]

    def generate(
        self, prompts: Sequence[Prompt], report: Callable[[float], None]
    ) -> list[Continuations]:
        report(1.0)
        return [self._generate(prompt) for prompt in prompts]

    def _logits(self, lane: LaneModel, tokens: Sequence[int]) -> Tensor:
        """Log probabilities, [length, vocabulary]."""
        with without_sublayers(lane.group.anatomy, lane.dropped):
            logits = lane.group.model(torch.tensor([[*tokens]])).logits[0]
        return logits.float().log_softmax(-1)

    def _rate(self, request: Request) -> Rating:
        tokens = request.context + request.continuation
        first = len(request.context) - 1
        logprobs, greedy = [], []
        answers = [self._logits(lane, tokens[:-1]) for lane in self._models]
        continuation = torch.tensor(request.continuation)
        for answer in answers:
            rows = answer[first:]
            logprobs.append(rows.gather(1, continuation[:, None]).sum().item())
            greedy.append(bool((rows.argmax(-1) == continuation).all()))
        return Rating(logprobs, greedy, _drift([answer[first] for answer in answers]))

    def _generate(self, prompt: Prompt) -> Continuations:
        lanes: list[Continuation] = []
        for lane in self._models:
            tokens: list[int] = []
            while len(tokens) < prompt.max_new_tokens and self._end not in tokens:
                rows = self._logits(lane, [*prompt.tokens, *tokens])
                tokens.append(int(rows[-1].argmax()))
            lanes.append(Continuation(tokens, "", None, None, None))
        first = [self._logits(lane, prompt.tokens)[-1] for lane in self._models]
        return Continuations(lanes, _drift(first))


def _drift(rows: Sequence[Tensor]) -> list[Drift]:
    """KL(p ‖ q) of the variants' log probabilities; the other measures are left out."""
    p = rows[0].double()
    drift: list[Drift] = []
    for row in rows[1:]:
        numbers: dict[str, Any] = dict.fromkeys(Drift.__struct_fields__)
        numbers["kl"] = float((p.exp() * (p - row.double())).sum())
        numbers["top1"] = bool(p.argmax() == row.argmax())
        drift.append(Drift(**numbers | {"not_comparable": False}))
    return drift
