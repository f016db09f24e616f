"""One step's numbers, computed on the model's device and brought to the host in one transfer."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .dots import dots
from .drift import Distributions, cosine, measure, split
from .lockstep import Outputs
from .sampling import sample
from .trace.records import Sampling
from .vocabulary import survey


@dataclass(frozen=True)
class Wanted:
    """What is to be known of a step."""

    lanes: int
    """The first rows of the outputs; the others are only measured."""
    candidates: int
    """Top tokens per lane."""
    answers: list[int]
    """Tokens."""


@dataclass(frozen=True)
class StepNumbers:
    """Lists run over the lanes; those of `drift` and `layers` over all rows but the first, those
    of the answers over all rows."""

    tokens: list[int]
    """Chosen."""
    logprobs: list[float]
    """Of the chosen tokens, in nats."""
    entropies: list[float]
    """nats"""
    margins: list[float]
    """The highest logit less the second highest."""
    top: list[list[int]]
    """Each lane's most probable tokens, the first first."""
    probs: list[list[float]]
    """Per lane, of all tokens in `top`, row after row."""
    drift: list[dict[str, float]]
    """By the names of `trace.records.Drift`."""
    layers: list[list[float]]
    """Cosine similarity of the residual streams after each sublayer."""
    answer_z: list[list[float]]
    answer_logprobs: list[list[float]]
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
    found = survey(z, max(wanted.candidates, 2), temperature)
    if sampling.temperature:
        chosen = sample(z[:count].float(), sampling, step)
    else:
        chosen = found.tokens[:count, 0].clone()
    for lane, token in forced.items():
        chosen[lane] = token
    top = found.tokens[:count, : wanted.candidates]
    answers = torch.tensor(wanted.answers, dtype=torch.int64, device=chosen.device)
    tokens = torch.cat([chosen, top.flatten(), answers])
    on_device = [
        chosen,
        found.tokens,
        found.highest,
        found.sums,
        z.index_select(-1, tokens),
        dots(outputs.h[None]),
        dots(outputs.streams[1:]),
    ]
    # All become float64, as some are; it holds a token id exactly.
    flat = torch.cat([tensor.flatten() for tensor in on_device]).cpu().numpy()
    ends = np.cumsum([tensor.numel() for tensor in on_device])
    tokens, ranked, highest, sums, logits, h_dots, stream_dots = (
        piece.reshape(tensor.shape)
        for piece, tensor in zip(np.split(flat, ends[:-1]), on_device, strict=True)
    )
    # What a broken model gives is no number either.
    with np.errstate(all="ignore"):
        lanes = Distributions(sums, highest[:, 0], z.shape[-1], temperature)
        drift = measure(h_dots[:, 0], lanes)
        logprobs = lanes.logprob(logits)
        probs = np.exp(logprobs)
        layers = cosine(*split(*stream_dots))
        margins = highest[:count, 0] - highest[:count, 1]
    drift["top1"] = (ranked[1:, 0] == ranked[0, 0]).astype(float)
    drift["dp"] = probs[1:, 0] - probs[0, 0]
    drift["logq"] = logprobs[1:, 0]
    others = count + top.numel()
    numbers = StepNumbers(
        tokens=tokens.astype(int).tolist(),
        logprobs=logprobs[:count, :count].diagonal().tolist(),
        entropies=lanes.entropy[:count].tolist(),
        margins=margins.tolist(),
        top=ranked[:count, : wanted.candidates].astype(int).tolist(),
        probs=probs[:count, count:others].tolist(),
        drift=[
            dict(zip(drift, row, strict=True)) for row in np.stack([*drift.values()], 1).tolist()
        ],
        layers=layers.T.tolist(),
        answer_z=logits[:, others:].tolist(),
        answer_logprobs=logprobs[:, others:].tolist(),
    )
    return numbers, chosen
