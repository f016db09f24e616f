"""Numbers of a batch's needed positions: log probabilities of targets, and drift at contexts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..measure import output_drift
from ..model.outputs import Outputs
from ..trace.records import Drift
from .lane_forward import StreamOutputs
from .requests import Request, Tokens
from .text_batches import Batch, Text

POSITIONS = 256
"""Positions whose logits are computed at a time at most."""


class AskedTexts:
    """Distinct texts of some requests, and where each request's tokens are in them.

    A request reads its context and all of its continuation but the last token: requests of which
    that is equal share a text.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self._by_text: dict[Tokens, list[int]] = {}
        self._contexts: dict[Tokens, Tokens] = {}
        """A text that begins with the context, by context."""
        for number, request in enumerate(requests):
            tokens = request.context + request.continuation[:-1]
            self._by_text.setdefault(tokens, []).append(number)
            self._contexts.setdefault(request.context, tokens)
        self.texts = [
            Text(tokens, range(min(len(requests[n].context) for n in numbers) - 1, len(tokens)))
            for tokens, numbers in self._by_text.items()
        ]

    def targets_in(self, batch: Batch) -> "Targets":
        """Tokens of the continuations whose texts are in a batch."""
        index: list[int] = []
        tokens: list[int] = []
        requests = {}
        for text in sorted(batch.texts):
            for number in self._by_text[self.texts[text].tokens]:
                request, first = self.requests[number], len(tokens)
                tokens += request.continuation
                begin = len(request.context) - 1
                end = begin + len(request.continuation)
                index += [batch.index[text, position] for position in range(begin, end)]
                requests[number] = slice(first, len(tokens))
        return Targets(torch.tensor(index), torch.tensor(tokens), requests)

    def contexts_in(self, batch: Batch) -> dict[Tokens, int]:
        """Contexts to measure in a batch, by ascending index of their last token."""
        found = {}
        for text in sorted(batch.texts):
            tokens = self.texts[text].tokens
            for number in self._by_text[tokens]:
                context = self.requests[number].context
                if self._contexts[context] == tokens:
                    found[context] = batch.index[text, len(context) - 1]
        return dict(sorted(found.items(), key=lambda pair: pair[1]))


@dataclass(frozen=True)
class Targets:
    """Tokens whose log probabilities are asked for, those of a request together."""

    index: Tensor
    """Index into the needed positions, int64 [targets]."""
    tokens: Tensor
    """int64 [targets]"""
    requests: dict[int, slice]
    """The targets of each request, by its number."""


@dataclass(frozen=True)
class StreamNumbers:
    """What is kept of a stream's outputs."""

    logprobs: list[float]
    """Log probabilities of the targets, in nats; NaN where logits are no numbers."""
    greedy: list[bool]
    """Whether each target is the most probable token."""
    h: Tensor
    """Inputs of the head at the contexts' last tokens [contexts, hidden]."""
    z: Tensor
    """Logits there [contexts, vocabulary]."""


def read_numbers(stream: StreamOutputs, targets: Targets, contexts: Sequence[int]) -> StreamNumbers:
    """Compute a stream's numbers, from the logits of some positions at a time.

    `contexts` are ascending indices into the needed positions.
    """
    order = targets.index.argsort(stable=True)
    index, tokens = targets.index[order], targets.tokens[order]
    kept = torch.tensor(contexts, dtype=torch.int64)
    logprobs, greedy, z_parts = [], [], []
    device = stream.h.device
    for start in range(0, len(stream.h), POSITIONS):
        z = stream.logits(start, start + POSITIONS)
        inside = (index >= start) & (index < start + POSITIONS)
        rows, columns = (index[inside] - start).to(device), tokens[inside].to(device)
        chosen = z.float().log_softmax(dim=-1)[rows, columns]
        logprobs.append(chosen)
        # NaN counts as the highest.
        greedy.append((z.argmax(dim=-1)[rows] == columns) & ~chosen.isnan())
        z_parts.append(z[(kept[(kept >= start) & (kept < start + POSITIONS)] - start).to(device)])
    back = order.argsort()
    return StreamNumbers(
        torch.cat(logprobs).cpu()[back].double().tolist(),
        torch.cat(greedy).cpu()[back].tolist(),
        stream.h[kept.to(device)],
        torch.cat(z_parts),
    )


def measure_drift(
    lanes: Sequence[StreamNumbers], context: int, device: torch.device
) -> list[Drift]:
    """Drift of each variant from the baseline, lane 0, at a context's last token, at T = 1.

    `context` is an index into the contexts. There are no cosines of the layers.
    """
    h = torch.stack([lane.h[context].to(device) for lane in lanes])
    z = torch.stack([lane.z[context].to(device) for lane in lanes])
    # Of the streams, the point before the first sublayer is not measured.
    return output_drift.measure_drift(Outputs(h, z, h[None]))
