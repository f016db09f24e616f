"""One step's numbers, computed on the model's device and brought to the host in one transfer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .drift import Distributions, cosine, measure, split
from .lockstep import Outputs
from .sampling import sample
from .survey import survey
from .trace.records import Sampling


@dataclass(frozen=True)
class Wanted:
    """What is to be known of a step."""

    lanes: int
    """The first rows of the outputs; the others are only measured."""
    candidates: int
    """Top tokens per lane."""
    answers: Tensor
    """Tokens, int64."""


@dataclass(frozen=True)
class StepNumbers:
    """Lists run over the lanes; those of `drift` and `layers` over all rows but the first, those
    of the answers over all rows. A number that is not finite is None."""

    tokens: list[int]
    """Chosen."""
    probs: list[float | None]
    """Of the chosen tokens, as the next."""
    logprobs: list[float | None]
    """nats"""
    entropies: list[float | None]
    """nats"""
    margins: list[float | None]
    """The highest logit less the second highest."""
    top: list[list[int]]
    """Each lane's most probable tokens, the first first."""
    top_probs: list[list[float | None]]
    """Per lane, of all tokens in `top`, row after row."""
    drift: list[dict[str, Any]]
    """By the names of `trace.records.Drift`."""
    layers: list[list[float | None]]
    """Cosine similarity of the residual streams after each sublayer, to seven places."""
    answer_z: list[list[float | None]]
    answer_logprobs: list[list[float | None]]
    """nats"""


def step_numbers(
    outputs: Outputs,
    sampling: Sampling,
    step: int,
    wanted: Wanted,
    forced: dict[int, int],
) -> tuple[StepNumbers, Tensor]:
    """The numbers, and the chosen tokens where they were chosen: int64 [lanes].

    `forced` are tokens by lane that stand in for what those would choose.
    """
    count, temperature = wanted.lanes, sampling.measured_temperature
    z = outputs.z
    found = survey(outputs, max(wanted.candidates, 2), temperature)
    if sampling.temperature:
        chosen = sample(z[:count].float(), sampling, step)
    else:
        chosen = found.tokens[:count, 0].clone()
    for lane, token in forced.items():
        chosen[lane] = token
    top = found.tokens[:count, : wanted.candidates]
    logits = z.index_select(-1, torch.cat([chosen, top.flatten(), wanted.answers.to(z.device)]))
    tokens, ranked, highest, sums, logits, h_dots, stream_dots = _on_host(
        [
            *(chosen, found.tokens, found.highest, found.sums, logits),
            *(found.h_dots, found.stream_dots),
        ]
    )
    # What a broken model gives is no number either.
    with np.errstate(all="ignore"):
        lanes = Distributions(sums, highest[:, 0], z.shape[-1], temperature)
        logprobs = lanes.logprob(logits)
        probs = np.exp(logprobs)
        drift = measure(h_dots, lanes)
        layers = np.rint(cosine(*split(*stream_dots)) * 1e7) / 1e7
        own = np.stack(
            [
                *(each[:count, :count].diagonal() for each in (probs, logprobs)),
                *(lanes.entropy[:count], highest[:count, 0] - highest[:count, 1]),
            ]
        )
    drift["dp"] = probs[1:, 0] - probs[0, 0]
    drift["logq"] = logprobs[1:, 0]
    same_top = (ranked[1:, 0] == ranked[0, 0]).tolist()
    others = count + top.numel()
    own_probs, own_logprobs, entropies, margins = _finite(own)
    numbers = StepNumbers(
        tokens=tokens.astype(int).tolist(),
        probs=own_probs,
        logprobs=own_logprobs,
        entropies=entropies,
        margins=margins,
        top=ranked[:count, : wanted.candidates].astype(int).tolist(),
        top_probs=_finite(probs[:count, count:others]),
        drift=[
            dict(zip(drift, row, strict=True), top1=same)
            for row, same in zip(_finite(np.stack([*drift.values()], 1)), same_top, strict=True)
        ],
        layers=_finite(layers.T),
        answer_z=_finite(logits[:, others:]),
        answer_logprobs=_finite(logprobs[:, others:]),
    )
    return numbers, chosen


def _on_host(tensors: list[Tensor]) -> list[np.ndarray]:
    """As float64, which holds a token id exactly; from another device in one transfer."""
    if tensors[0].device == torch.device("cpu"):
        return [tensor.double().numpy() for tensor in tensors]
    flat = torch.cat([tensor.double().flatten() for tensor in tensors]).cpu().numpy()
    ends = np.cumsum([tensor.numel() for tensor in tensors])
    pieces = np.split(flat, ends[:-1])
    return [piece.reshape(of.shape) for piece, of in zip(pieces, tensors, strict=True)]


def _finite(numbers: np.ndarray) -> Any:
    """As lists, with None for what is not finite: JSON has no NaN and no infinity."""
    finite = np.isfinite(numbers)
    if not finite.all():
        numbers = numbers.astype(object)
        numbers[~finite] = None
    return numbers.tolist()
