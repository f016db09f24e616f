"""When lanes and sessions end."""

from collections.abc import Collection, Sequence

from ..measure.step_numbers import StepNumbers
from ..trace.records import Header, Step


def running_lanes(steps: Sequence[Step], lane_count: int) -> list[bool]:
    """For each lane, whether it has not ended after these steps."""
    if not steps:
        return [True] * lane_count
    return [token is not None and not token.ended for token in steps[-1].lanes]


def ending_lanes(
    header: Header,
    numbers: StepNumbers,
    running: list[bool],
    forced: Collection[int],
    end_tokens: Collection[int],
) -> list[bool]:
    """For each lane, whether it ends with its token; in a forced context all end with the baseline.

    `forced` are the lanes whose token was given.
    """
    if header.sampling.ignore_eos:
        return [False] * len(running)
    ends = [
        runs and token in end_tokens and (not not_numbers or lane in forced)
        for lane, (runs, token, not_numbers) in enumerate(
            zip(running, numbers.tokens, numbers.not_numbers, strict=True)
        )
    ]
    return [ends[0]] * len(ends) if header.context == "forced" else ends


def why_finished(header: Header, steps: Sequence[Step]) -> str | None:
    """Why no step can follow these; None while one can."""
    if steps and not any(running_lanes(steps, len(header.lanes))):
        return "every lane has ended"
    return why_full(header, len(steps))


def why_full(header: Header, step_count: int) -> str | None:
    """Which limit so many steps have reached; None while there is room for another."""
    limit = header.model.context_length
    if step_count >= header.sampling.max_new_tokens:
        return f"{step_count} new tokens are decoded, as --max-new-tokens allows"
    if limit is not None and len(header.prompt.tokens) + step_count >= limit:
        return f"the model's context of {limit} tokens is full"
    return None
