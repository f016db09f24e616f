"""One step's numbers, computed on the model's device and brought to the host in one transfer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .drift import Distributions, measure, stream_cosines
from .highest import topk
from .lockstep import Outputs
from .sampling import sample
from .trace.records import Sampling


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
    count, candidates = wanted.lanes, wanted.candidates
    rows = Distributions.of(outputs.z, sampling.measured_temperature)
    highest, ranked = topk(outputs.z, max(candidates, 2))
    if sampling.temperature:
        chosen = sample(outputs.z[:count].float(), sampling, step)
    else:
        chosen = ranked[:count, 0].clone()
    for lane, token in forced.items():
        chosen[lane] = token
    top = ranked[:count, :candidates]
    drift = measure(outputs.h, rows)
    answers = torch.tensor(wanted.answers, dtype=torch.int64, device=chosen.device)
    tokens = torch.cat([chosen, top.flatten(), answers])
    logprobs = rows.logprob(tokens[None])
    probs = logprobs.exp()
    others = count + top.numel()
    drift["top1"] = (ranked[1:, 0] == ranked[0, 0]).double()
    drift["dp"] = probs[1:, 0] - probs[0, 0]
    drift["logq"] = logprobs[1:, 0]
    values = [
        chosen,
        logprobs[:count, :count].diagonal(),
        rows.entropy[:count],
        (highest[:, 0].double() - highest[:, 1].double())[:count],
        top,
        probs[:count, count:others],
        torch.stack([*drift.values()], dim=1),
        stream_cosines(outputs.streams[1:]).T,
        outputs.z[:, answers],
        logprobs[:, others:],
    ]
    # float64 holds a token id exactly.
    host = torch.cat([value.flatten().double() for value in values]).cpu()
    pieces = host.split([value.numel() for value in values])
    (
        tokens,
        logprobs,
        entropies,
        margins,
        top,
        probs,
        measures,
        layers,
        answer_z,
        answer_logprobs,
    ) = (piece.view(value.shape).tolist() for piece, value in zip(pieces, values, strict=True))
    numbers = StepNumbers(
        tokens=[int(token) for token in tokens],
        logprobs=logprobs,
        entropies=entropies,
        margins=margins,
        top=[[int(token) for token in lane] for lane in top],
        probs=probs,
        drift=[dict(zip(drift, row, strict=True)) for row in measures],
        layers=layers,
        answer_z=answer_z,
        answer_logprobs=answer_logprobs,
    )
    return numbers, chosen
