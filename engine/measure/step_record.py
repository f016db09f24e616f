"""The parts of a step's record, from the step's numbers; None where a lane has ended."""

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
    """Token records per lane, whose text is extended by its token; no step follows the `last`."""
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
    """Union of the running lanes' top tokens, most probable in the baseline first."""
    column: dict[int, int] = {}
    """Index into each lane's `top_probs` by token."""
    count = len(numbers.top[0])
    for lane, top in enumerate(numbers.top):
        if running[lane] and not numbers.not_numbers[lane]:
            for rank, token in enumerate(top):
                column.setdefault(token, lane * count + rank)
    baseline_probs = numbers.top_probs[0]
    order = sorted(column, key=lambda token: -(baseline_probs[column[token]] or 0))
    columns = [column[token] for token in order]
    return records.Candidates(
        tokens=order,
        texts=[texts[token] for token in order],
        probs=[
            [probs[index] for index in columns] if runs else None
            for probs, runs in zip(numbers.top_probs, running, strict=True)
        ],
    )


def drift_records(drifts: list[dict[str, Any]], measured: list[bool]) -> list[records.Drift | None]:
    """Drift records per variant; None where a variant is not measured."""
    return [
        records.Drift(**drift) if is_measured else None
        for drift, is_measured in zip(drifts, measured, strict=True)
    ]


def layer_records(
    layers: list[list[float | None]], measured: list[bool], same_depth: list[bool]
) -> list[list[float | None] | None]:
    """Cosines of the layers per variant; None also where its model has another depth than the
    baseline's."""
    return [
        cosines if is_measured and same else None
        for cosines, is_measured, same in zip(layers, measured, same_depth, strict=True)
    ]


def answer_records(
    numbers: StepNumbers, rows: range, measured: list[bool]
) -> list[records.AnswerNumbers | None]:
    """Numbers of the answers per row; None where a row is not measured."""
    return [
        records.AnswerNumbers(z=numbers.answer_z[row], logprob=numbers.answer_logprobs[row])
        if is_measured
        else None
        for row, is_measured in zip(rows, measured, strict=True)
    ]
