"""One step's numbers on the host, as lists, from the reductions of its outputs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .drift import MEASURES, measure
from .step_reduction import ReducedArrays, StepRequest


@dataclass(frozen=True)
class StepNumbers:
    """The numbers of one step as lists, None where a number is not finite.

    Lists run over the lanes; those of `drift` and `layers` over all rows but the first, those of
    the answers over all rows.
    """

    tokens: list[int]
    """Chosen tokens."""
    not_numbers: list[bool]
    """Whether the lane has no softmax and chose nothing: `trace.records.Token`."""
    probs: list[float | None]
    """Probabilities of the chosen tokens."""
    logprobs: list[float | None]
    """Log probabilities of the chosen tokens, in nats."""
    entropies: list[float | None]
    """Entropies of softmax(z / T), in nats."""
    margins: list[float | None]
    """The highest logit less the second highest."""
    top: list[list[int]]
    """Most probable tokens of each lane, in descending order."""
    top_probs: list[list[float | None]]
    """Probabilities per lane of all tokens in `top`, row after row."""
    drift: list[dict[str, Any]]
    """Measures by the names of `trace.records.Drift`."""
    layers: list[list[float | None]]
    """Cosine similarity of the residual streams after each sublayer, to seven decimal
    places."""
    answer_z: list[list[float | None]]
    """Logits of the answers."""
    answer_logprobs: list[list[float | None]]
    """Log probabilities of the answers, in nats."""


def step_numbers(
    reduced: ReducedArrays, request: StepRequest, vocabulary: int, temperature: float
) -> StepNumbers:
    """Compute the numbers of a step from its reductions.

    `vocabulary` is the number of logits of a row, `temperature` that of the measures.
    """
    _, ranked, sums, highest, logits, h_dots, stream_dots = reduced
    count = request.lanes
    measures = measure(sums, highest, logits, h_dots, stream_dots, vocabulary, temperature)
    # NaN counts as the highest, and any number is above minus infinity.
    broken = ~np.isfinite(highest[:, 0])
    if broken.any():
        # A token beside infinity would have the probability 0.
        for values in (measures.probs, measures.logprobs, measures.entropies, measures.margins):
            values[broken] = np.nan
    logprobs, probs = measures.logprobs, measures.probs
    ranking = ranked.astype(int).tolist()
    top = [tokens[: request.candidates] for tokens in ranking[:count]]
    first_answer = count + sum(map(len, top))
    to_list = np.ndarray.tolist if measures.finite else _to_list_with_none
    return StepNumbers(
        tokens=reduced.tokens.astype(int).tolist(),
        not_numbers=broken[:count].tolist(),
        probs=to_list(probs.diagonal()[:count]),
        logprobs=to_list(logprobs.diagonal()[:count]),
        entropies=to_list(measures.entropies[:count]),
        margins=to_list(measures.margins[:count]),
        top=top,
        top_probs=to_list(probs[:count, count:first_answer]),
        drift=_drift_by_name(to_list(measures.drift), [row[0] for row in ranking], broken),
        layers=to_list(measures.layers),
        answer_z=to_list(logits[:, first_answer:]),
        answer_logprobs=to_list(logprobs[:, first_answer:]),
    )


def _drift_by_name(
    drifts: list[list[float | None]], top1: list[int], broken: np.ndarray
) -> list[dict[str, Any]]:
    """Measures per variant; `top1` are each row's most probable tokens, `broken` rows have no
    softmax."""
    return [
        _not_comparable(drift)
        if broken[0] or broken[row]
        else dict(zip(MEASURES, drift, strict=True), top1=top1[row] == top1[0])
        for row, drift in enumerate(drifts, start=1)
    ]


def _not_comparable(row: list[float | None]) -> dict[str, Any]:
    """Measures of a variant where it or the baseline has no softmax: those of h alone."""
    measures = dict(zip(MEASURES, row, strict=True))
    measures_of_h = {name: value for name, value in measures.items() if name.endswith("_h")}
    return {**dict.fromkeys(MEASURES), **measures_of_h, "top1": False, "not_comparable": True}


def _to_list_with_none(numbers: np.ndarray) -> Any:
    """Nested lists with None for what is not finite: JSON has no NaN and no infinity."""
    replaced = numbers.astype(object)
    replaced[~np.isfinite(numbers)] = None
    return replaced.tolist()
