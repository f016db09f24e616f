"""The parts of a step's record, made of the step's numbers; None where a lane has ended."""

from typing import Any

from ..model.detokenize import LaneText, TokenTexts
from ..trace import records
from .step_numbers import StepNumbers


def token_records(
    numbers: StepNumbers,
    running: list[bool],
    ended: list[bool],
    forced: dict[int, int],
    texts: list[LaneText],
    *,
    last: bool,
) -> list[records.Token | None]:
    """Per lane; its text goes on by its token, to the end if no step follows the `last`."""
    return [
        records.Token(
            token=numbers.tokens[lane],
            text=""
            if numbers.not_numbers[lane] and lane not in forced
            else texts[lane].add(numbers.tokens[lane], last=last or ended[lane]),
            prob=numbers.probs[lane],
            logprob=numbers.logprobs[lane],
            entropy=numbers.entropies[lane],
            margin=numbers.margins[lane],
            ended=ended[lane],
            forced=lane in forced,
            not_numbers=numbers.not_numbers[lane],
        )
        if runs
        else None
        for lane, runs in enumerate(running)
    ]


def candidate_records(
    numbers: StepNumbers, running: list[bool], texts: TokenTexts
) -> records.Candidates:
    """Of the running lanes' top tokens each once, most probable in the baseline first."""
    place: dict[int, int] = {}
    count = len(numbers.top[0])
    for lane, top in enumerate(numbers.top):
        if running[lane] and not numbers.not_numbers[lane]:
            for rank, token in enumerate(top):
                place.setdefault(token, lane * count + rank)
    baselines = numbers.top_probs[0]
    order = sorted(place, key=lambda token: -(baselines[place[token]] or 0))
    places = [place[token] for token in order]
    return records.Candidates(
        tokens=order,
        texts=[texts[token] for token in order],
        probs=[
            [probs[at] for at in places] if runs else None
            for probs, runs in zip(numbers.top_probs, running, strict=True)
        ],
    )


def drift_records(drifts: list[dict[str, Any]], measured: list[bool]) -> list[records.Drift | None]:
    """Per variant."""
    return [
        records.Drift(**drift) if is_measured else None
        for drift, is_measured in zip(drifts, measured, strict=True)
    ]


def layer_records(
    layers: list[list[float | None]], measured: list[bool], same_depth: list[bool]
) -> list[list[float | None] | None]:
    """Per variant; None also for one whose model has another depth than the baseline's."""
    return [
        of_variant if is_measured and same else None
        for of_variant, is_measured, same in zip(layers, measured, same_depth, strict=True)
    ]


def answer_records(
    numbers: StepNumbers, rows: range, measured: list[bool]
) -> list[records.AnswerNumbers | None]:
    return [
        records.AnswerNumbers(z=numbers.answer_z[row], logprob=numbers.answer_logprobs[row])
        if is_measured
        else None
        for row, is_measured in zip(rows, measured, strict=True)
    ]
