"""Blame over all steps of a trace, and over what the baseline writes after prompts."""

import itertools
from collections.abc import Sequence

import msgspec

from ..blame.pruned_lane import PrunedLane
from ..blame.texts import BlamedText, TextBlame, blame_texts
from ..errors import OptionError, UserError
from ..model.description import check_same_model, describe_model
from ..options import Options
from ..out_of_memory import guard_memory
from ..progress import Progress
from ..trace.blame import BlamedTokens
from ..trace.divergence import chosen_tokens
from ..trace.records import Sampling
from ..trace.trace import Trace
from ..variants.builder import LaneModel, VariantBuilder, lane_records, open_builder
from ..variants.recipes import parse
from .blaming import check_angles, check_reads
from .session import Session


def blame_trace(
    trace: Trace, lane: int, tokens: BlamedTokens, options: Options, progress: Progress
) -> TextBlame:
    """Blame a variant over all steps of the open branch, on the baseline's tokens or its own.

    `options` are the trace's, with its recipes. Raises `UserError` if model or lane are not those
    that were recorded, if no step has a token of the lane that is read, if the lane has read other
    tokens, and as `PrunedLane` does.
    """
    check_reads(trace, lane, tokens)
    header = trace.header
    reader = 0 if tokens == "baseline" else lane
    text = _text(header.prompt.tokens, chosen_tokens(trace.steps, reader))
    if text is None:
        raise UserError(f"{trace.lane_names[reader]} has written nothing in the trace")
    recipes = options.variants or ()
    if len(recipes) < lane:
        raise UserError(
            f"the trace has no recipe of {trace.lane_names[lane]}; it cannot be blamed without"
        )
    builder = open_builder(options, progress)
    check_same_model(header.model, describe_model(builder.loaded))
    models, left_out = builder.build_lanes([parse(recipes[lane - 1])])
    if left_out:
        raise UserError(left_out[0])
    if lane_records(models)[1] != header.lanes[lane]:
        raise OptionError(
            f"{trace.lane_names[lane]} does not prune what it pruned when the trace was recorded; "
            "it cannot be blamed with this calibration text"
        )
    return _blame(builder, models[1], [text], header.sampling, progress)


def blame_prompts(
    options: Options, prompts: Sequence[str], progress: Progress
) -> list[tuple[str, TextBlame]]:
    """Blame each variant of the options, by name, over the tokens that the baseline decodes after
    prompts.

    Raises `UserError` for a prompt that the model cannot read, if the baseline writes nothing, and
    as `PrunedLane` does.
    """
    builder = open_builder(options, progress)
    models, left_out = builder.build_lanes([parse(recipe) for recipe in options.variants or ()])
    if left_out:
        raise UserError(left_out[0])
    texts, sampling = _written(builder, models[0], options, prompts, progress)
    return [
        (model.recipe.name, _blame(builder, model, texts, sampling, progress))
        for model in models[1:]
    ]


def _written(
    builder: VariantBuilder,
    baseline: LaneModel,
    options: Options,
    prompts: Sequence[str],
    progress: Progress,
) -> tuple[list[BlamedText], Sampling]:
    """What the baseline decodes after each prompt, and how it was sampled."""
    alone = msgspec.structs.replace(options, variants=(), prompt=prompts[0], context="free")
    session = Session(builder, [baseline], [], alone, None, progress)
    texts: list[BlamedText] = []
    try:
        for number, prompt in enumerate(prompts):
            progress("writing what follows the prompts", number / len(prompts))
            session.restart(prompt=prompt)
            while session.finished is None:
                session.step()
            chosen = chosen_tokens(session.trace.steps, 0)
            if text := _text(session.trace.header.prompt.tokens, chosen):
                texts.append(text)
        sampling = session.trace.header.sampling
    finally:
        session.close()
    if not texts:
        raise UserError("the baseline writes nothing after these prompts")
    return texts, sampling


def _text(prompt: Sequence[int], chosen: Sequence[int]) -> BlamedText | None:
    """The text in which each chosen token but the last is read, up to where nothing was chosen;
    None if that is at once."""
    tokens = [*itertools.takewhile(lambda token: token >= 0, chosen)]
    return BlamedText([*prompt, *tokens[:-1]], first=len(prompt) - 1) if tokens else None


def _blame(
    builder: VariantBuilder,
    model: LaneModel,
    texts: Sequence[BlamedText],
    sampling: Sampling,
    progress: Progress,
) -> TextBlame:
    for group in (builder.baseline, model.group):
        check_angles(group, max(len(text.tokens) for text in texts))
    lane = PrunedLane(builder.baseline, model)
    with guard_memory("out of memory while reading the forms of a lane; shorter texts need less"):
        return blame_texts(lane, texts, sampling.measured_temperature, progress)
