"""The blame of a recorded step: whose tokens are read, what is refused, and what is found."""

import time
from collections.abc import Mapping

import msgspec

from ..blame.blamed_step import BlamedStep
from ..blame.in_depth import where_in_depth
from ..blame.in_text import where_in_text
from ..blame.parts import blame_parts
from ..blame.pruned_lane import PrunedLane
from ..decode.prepared_lanes import PreparedLanes
from ..errors import UserError
from ..model.rope import ChangingRope
from ..model.weight_group import WeightGroup
from ..out_of_memory import guard_memory, roll_back
from ..progress import Progress
from ..trace.blame import Blame, BlamedTokens, Causes, find_blame
from ..trace.trace import Trace
from .ends import running_lanes


def blame_step(
    lanes: PreparedLanes,
    trace: Trace,
    texts: Mapping[int, str],
    progress: Progress,
    number: int,
    lane: int,
    tokens: BlamedTokens,
    what: Causes,
) -> Blame:
    """Find the causes of a lane's token at a step of the open branch; the lanes decode on as if
    nothing had been read.

    `parts` are measured afresh; what is found in text or depth is added to what was recorded of the
    same tokens. `tokens` are those that are read before the step, `texts` those of single tokens.
    Raises `UserError` where there is nothing to blame or memory runs out.
    """
    step = _blamed_step(lanes, trace, number, lane, tokens, texts)
    recorded = find_blame(trace.steps[number].blames, lane, tokens)
    with (
        roll_back(lanes.lockstep.install),
        guard_memory(
            f"out of memory while {trace.lane_names[lane]} was blamed after {len(step.text)} "
            "tokens; an earlier step or a shorter prompt needs less"
        ),
    ):
        lanes.lockstep.remove()
        blame = _find_causes(lanes, step, recorded, what, progress)
    lanes.lockstep.install()
    return blame


def _find_causes(
    lanes: PreparedLanes,
    step: BlamedStep,
    recorded: Blame | None,
    what: Causes,
    progress: Progress,
) -> Blame:
    baseline, model = lanes.models[0].group, lanes.models[step.lane]
    blame = recorded
    if blame is None or what == "parts":
        blame = blame_parts(PrunedLane(baseline, model), step, progress)
    began = time.perf_counter()
    if what == "text":
        in_text = where_in_text(baseline, model, step, blame, progress)
        blame = msgspec.structs.replace(blame, in_text=in_text)
    elif what == "depth":
        in_depth = where_in_depth(baseline, model, step, blame, progress)
        blame = msgspec.structs.replace(blame, in_depth=in_depth)
    return msgspec.structs.replace(blame, seconds=blame.seconds + time.perf_counter() - began)


def _blamed_step(
    lanes: PreparedLanes,
    trace: Trace,
    number: int,
    lane: int,
    tokens: BlamedTokens,
    texts: Mapping[int, str],
) -> BlamedStep:
    """The tokens before a step of the open branch.

    Raises `UserError` where there is nothing to blame: no such step or lane, or the lane whose
    tokens are to be read had ended by then.
    """
    steps, names = trace.steps, trace.lane_names
    if not 0 <= number < len(steps):
        raise UserError(f"there is no step {number} to blame; {_steps_there(len(steps))}")
    if not 0 < lane < len(names):
        raise UserError(
            "the baseline prunes nothing, so there is nothing to blame; choose a variant"
            if lane == 0
            else f"there is no lane {lane} to blame; the last one is {len(names) - 1}"
        )
    check_reads(trace, lane, tokens)
    reader = lane if tokens == "lane" else 0
    if not running_lanes(steps[:number], len(names))[reader]:
        raise UserError(
            f"{names[reader]} has ended before step {number}; blame an earlier step, or the "
            "other's tokens"
        )
    prompt = trace.header.prompt.tokens
    chosen = [token.token for step in steps[:number] if (token := step.lanes[reader])]
    text = [*prompt, *chosen]
    for model in (lanes.models[0], lanes.models[lane]):
        check_angles(model.group, len(text))
    return BlamedStep(
        lane=lane,
        tokens=tokens,
        text=text,
        prompt=len(prompt),
        temperature=trace.header.sampling.measured_temperature,
        texts=texts,
    )


def check_reads(trace: Trace, lane: int, tokens: BlamedTokens) -> None:
    """Raise `UserError` if no lane of the trace has read these tokens."""
    if tokens == "lane" and trace.header.context == "forced":
        raise UserError(
            f"in a forced context {trace.lane_names[lane]} reads the baseline's tokens; blame it "
            "on those"
        )


def check_angles(group: WeightGroup, positions: int) -> None:
    """Raise `UserError` if a text of so many tokens is read at once with other rotary angles than
    its first tokens were decoded with."""
    limit = ChangingRope(group.model).limit
    if limit is not None and positions > limit:
        raise UserError(
            f"{group.name}'s rotary angles change after {limit} tokens, so a step after "
            f"{positions} cannot be read again as it was decoded; blame an earlier one, or a "
            "shorter text"
        )


def _steps_there(count: int) -> str:
    return f"the steps are 0 to {count - 1}" if count else "nothing is decoded yet"
