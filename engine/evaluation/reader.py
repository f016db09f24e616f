"""Texts read in all lanes: log probabilities, drift and embeddings."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..model.dropped import Dropped
from ..model.rope import ChangingRope
from ..model.weight_group import WeightGroup
from ..out_of_memory import guard_memory
from ..trace.records import Drift
from .branched_forward import BranchedForward, supports_branched_forward
from .gated_forward import GatedForward
from .lane_forward import LaneForward, StreamOutputs
from .lanes import EvaluatedLanes
from .requests import Rating, Request, Tokens
from .stream_numbers import AskedTexts, StreamNumbers, measure_drift, read_numbers
from .text_batches import Batch, Plan, Text, plan_alone, plan_texts

Pooling = Literal["last", "mean"]
Report = Callable[[float], None]
"""Called with the fraction that is done."""


class LaneReader:
    """Reads whole texts in all lanes; the models stay as they are."""

    def __init__(self, lanes: EvaluatedLanes) -> None:
        self._batch_size = lanes.settings.batch_size
        baseline = lanes.models[0].group
        self._model = baseline.model
        groups: dict[WeightGroup, dict[int, Dropped]] = {}
        for number, lane in enumerate(lanes.models):
            groups.setdefault(lane.group, {})[number] = lane.dropped
        self._forwards = [_make_forward(group, dropped) for group, dropped in groups.items()]
        self._baseline = [_make_forward(baseline, {0: Dropped()})]
        self._shared = all(map(supports_branched_forward, groups))
        """Whether texts can share what they begin with in all models."""
        limits = [ChangingRope(group.model).limit for group in groups]
        self._limit = min((limit for limit in limits if limit is not None), default=None)
        """Longest text whose rotary angles do not depend on its length; None if none do."""

    def rate(self, requests: Sequence[Request], report: Report) -> list[Rating]:
        """Rate the requests in all lanes.

        Batches depend on the requests alone, so that the same requests give the same bits. A log
        probability is NaN where the logits are no numbers. Raises `UserError` where memory runs out
        or the model cannot read.
        """
        with self._guard():
            return self._rate(AskedTexts(requests), report)

    def embed(self, texts: Sequence[Tokens], pooling: Pooling, report: Report) -> Tensor:
        """Embed texts of at least one token in all lanes: float32 [lanes, texts, hidden] on the
        CPU, not normalized.

        The embedding is h, the input of the head, at the last token, or its mean over all tokens.
        Raises `UserError` as `rate` does.
        """
        with self._guard():
            return self._embed(texts, pooling, report)

    def noise_floor(self, requests: Sequence[Request]) -> float:
        """Largest change of a log probability of the baseline, in nats, when texts are read in
        batches instead of alone."""
        asked = AskedTexts(requests)
        with self._guard():
            together = self._logprobs(asked, self._plan(asked.texts))
            alone = self._logprobs(asked, plan_alone(asked.texts))
        changes = [abs(x - y) for x, y in zip(together, alone, strict=True)]
        # 0 comes first, and stays where logits are no numbers.
        return max([0.0, *changes])

    @torch.inference_mode()
    def _rate(self, asked: AskedTexts, report: Report) -> list[Rating]:
        ratings = [Rating([], [], []) for _ in asked.requests]
        drift: dict[Tokens, list[Drift]] = {}
        for batch, streams in _read(self._forwards, self._plan(asked.texts), report):
            targets, contexts = asked.targets_in(batch), asked.contexts_in(batch)
            lanes: dict[int, StreamNumbers] = {}
            for stream in streams:
                numbers = read_numbers(stream, targets, [*contexts.values()])
                lanes |= dict.fromkeys(stream.lanes, numbers)
                # Its logits are not held while the next ones are computed.
                del stream
            in_order = [lanes[lane] for lane in sorted(lanes)]
            for number, part in targets.requests.items():
                for lane in in_order:
                    ratings[number].logprobs.append(sum(lane.logprobs[part]))
                    ratings[number].greedy.append(all(lane.greedy[part]))
            for row, context in enumerate(contexts):
                drift[context] = measure_drift(in_order, row, self._model.device)
        for rating, request in zip(ratings, asked.requests, strict=True):
            rating.drift.extend(drift[request.context])
        return ratings

    @torch.inference_mode()
    def _embed(self, texts: Sequence[Tokens], pooling: Pooling, report: Report) -> Tensor:
        begin = -1 if pooling == "last" else 0
        asked = [Text(tokens, range(len(tokens))[begin:]) for tokens in texts]
        embeddings: dict[tuple[int, int], Tensor] = {}
        for batch, streams in _read(self._forwards, self._plan(asked), report):
            needed = {
                text: [batch.index[text, position] for position in asked[text].needed]
                for text in batch.texts
            }
            for stream in streams:
                h = stream.h.float()
                pooled = torch.stack([h[index].mean(dim=0) for index in needed.values()]).cpu()
                for text, embedding in zip(needed, pooled, strict=True):
                    embeddings |= {(lane, text): embedding for lane in stream.lanes}
        rows = [embeddings[key] for key in sorted(embeddings)]
        return torch.stack(rows).unflatten(0, (-1, len(texts)))

    @torch.inference_mode()
    def _logprobs(self, asked: AskedTexts, plan: Plan) -> list[float]:
        """Log probabilities of the requests in the baseline, in the order of the requests."""
        logprobs = [0.0] * len(asked.requests)
        for batch, streams in _read(self._baseline, plan, lambda _: None):
            targets = asked.targets_in(batch)
            for stream in streams:
                numbers = read_numbers(stream, targets, [])
                for number, part in targets.requests.items():
                    logprobs[number] = sum(numbers.logprobs[part])
        return logprobs

    def _plan(self, texts: Sequence[Text]) -> Plan:
        longest = max((len(text.tokens) for text in texts), default=0)
        if self._limit is not None and longest > self._limit:
            return plan_alone(texts)
        return plan_texts(texts, self._batch_size, shared=self._shared)

    def _guard(self) -> guard_memory:
        smaller = "a smaller --batch-size needs" if self._batch_size > 1 else "fewer variants need"
        return guard_memory(
            f"out of memory while reading texts in batches of {self._batch_size}; {smaller} less"
        )


def _make_forward(group: WeightGroup, lanes: dict[int, Dropped]) -> LaneForward:
    supported = supports_branched_forward(group)
    return BranchedForward(group, lanes) if supported else GatedForward(group, lanes)


def _read(
    forwards: Sequence[LaneForward], plan: Plan, report: Report
) -> Iterator[tuple[Batch, Iterator[StreamOutputs]]]:
    """Each batch and the outputs of its streams, which are to be taken before the next batch."""
    prefixes = [forward.read_prefix(plan.prefix) for forward in forwards]
    total = sum(batch.tokens.numel() for batch in plan.batches)
    done = 0

    def streams(batch: Batch) -> Iterator[StreamOutputs]:
        for number, (forward, prefix) in enumerate(zip(forwards, prefixes, strict=True)):
            yield from forward.read(batch, prefix)
            report((done + batch.tokens.numel() * (number + 1) / len(forwards)) / total)

    for batch in plan.batches:
        yield batch, streams(batch)
        done += batch.tokens.numel()
