"""One step's numbers, computed on the model's device and brought to the host in one transfer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model.outputs import Outputs
from ..trace.records import Sampling
from .drift import MEASURES, measure
from .reductions import reduce_logits
from .sampling import sample


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
    not_numbers: list[bool]
    """The lane has no softmax, and chose nothing: `trace.records.Token`."""
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
    reductions = reduce_logits(outputs, max(wanted.candidates, 2), temperature)
    if sampling.temperature:
        chosen = sample(z[:count].float(), sampling, step)
    else:
        chosen = reductions.tokens[:count, 0].clone()
    for lane, token in forced.items():
        chosen[lane] = token
    top = reductions.tokens[:count, : wanted.candidates]
    logits = z.index_select(-1, torch.cat([chosen, top.flatten(), wanted.answers.to(z.device)]))
    tokens, ranked, sums, highest, logits, h_dots, stream_dots = _on_host(
        [
            *(chosen, reductions.tokens, reductions.sums, reductions.highest, logits),
            *(reductions.h_dots, reductions.stream_dots),
        ]
    )
    measures = measure(sums, highest, logits, h_dots, stream_dots, z.shape[-1], temperature)
    # NaN is the highest, and above minus infinity stands any number.
    broken = ~np.isfinite(highest[:, 0])
    if broken.any():
        # A token beside infinity would have the probability 0.
        for of_lanes in (measures.probs, measures.logprobs, measures.entropies, measures.margins):
            of_lanes[broken] = np.nan
    others, logprobs, probs = count + top.numel(), measures.logprobs, measures.probs
    listed = _listed if measures.finite else _listed_with_none
    ranking = ranked.astype(int).tolist()
    numbers = StepNumbers(
        tokens=tokens.astype(int).tolist(),
        not_numbers=broken[:count].tolist(),
        probs=listed(probs.diagonal()[:count]),
        logprobs=listed(logprobs.diagonal()[:count]),
        entropies=listed(measures.entropies[:count]),
        margins=listed(measures.margins[:count]),
        top=[tokens[: wanted.candidates] for tokens in ranking[:count]],
        top_probs=listed(probs[:count, count:others]),
        drift=[
            _not_comparable(row)
            if broken[0] or is_broken
            else dict(zip(MEASURES, row, strict=True), top1=tokens[0] == ranking[0][0])
            for row, tokens, is_broken in zip(
                listed(measures.drift), ranking[1:], broken[1:], strict=True
            )
        ],
        layers=listed(measures.layers),
        answer_z=listed(logits[:, others:]),
        answer_logprobs=listed(logprobs[:, others:]),
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


def _not_comparable(row: list[float | None]) -> dict[str, Any]:
    """The measures of a lane where one of the two has no softmax: those of h alone."""
    measured = dict(zip(MEASURES, row, strict=True))
    of_h = {name: value for name, value in measured.items() if name.endswith("_h")}
    return {**dict.fromkeys(MEASURES), **of_h, "top1": False, "not_comparable": True}


_listed: Callable[[np.ndarray], Any] = np.ndarray.tolist


def _listed_with_none(numbers: np.ndarray) -> Any:
    """With None for what is not finite: JSON has no NaN and no infinity."""
    replaced = numbers.astype(object)
    replaced[~np.isfinite(numbers)] = None
    return replaced.tolist()
