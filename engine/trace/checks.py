"""Checks of a line of a trace file against the file's header."""

import itertools
import math

from .blame import Blame, Part, WhereInDepth, WhereInText
from .records import Blamed, Event, Header, Lens, Read, Step


def check_event(event: Event, header: Header) -> None:
    """Raise `ValueError` unless the event fits the header's lanes, layers, answers and prompt."""
    match event:
        case Step():
            _check_step(event, header)
        case Read():
            _check_lens(event.lens, header)
        case Blamed():
            _check_blame(event.blame, event.step, header)
        case _:
            pass


def _check_step(step: Step, header: Header) -> None:
    """Raise `ValueError` unless every list is as long as the header's lanes and answers need."""
    if step.lens is not None:
        _check_lens(step.lens, header)
    for blame in step.blames:
        _check_blame(blame, step.step, header)
    if len({(blame.lane, blame.tokens) for blame in step.blames}) < len(step.blames):
        raise ValueError("a lane is blamed twice on the same tokens")
    lanes, answers = len(header.lanes), len(header.answers.tokens) if header.answers else 0
    tokens = len(step.candidates.tokens)
    per_variant = (step.drift, step.layers, step.local, step.local_layers, step.local_answers)
    answer_numbers = (*(step.answers or []), *(step.local_answers or []))
    if not (
        len(step.lanes) == len(step.candidates.probs) == lanes
        and (step.answers is None or len(step.answers) == lanes)
        and all(listed is None or len(listed) == lanes - 1 for listed in per_variant)
        and all(n is None or len(n.z) == len(n.logprob) == answers for n in answer_numbers)
        and len(step.candidates.texts) == tokens
        and all(probs is None or len(probs) == tokens for probs in step.candidates.probs)
    ):
        raise ValueError("its lists do not fit the header's lanes")


def _check_lens(lens: Lens, header: Header) -> None:
    points = 2 * header.model.layers + 1
    rows = [row for row in (*lens.lanes, *(lens.local or [])) if row is not None]
    lists = [(r.tokens, r.texts, r.probs, r.raw_tokens, r.raw_texts, r.raw_probs) for r in rows]
    if not (
        len(lens.lanes) == len(header.lanes)
        and (lens.local is None or len(lens.local) == len(header.lanes) - 1)
        and all(len(listed) == points for of_row in lists for listed in of_row)
        and all(len(row.transitions) == points - 1 for row in rows)
    ):
        raise ValueError("its lens does not fit the header's lanes and layers")


def _check_blame(blame: Blame, step: int, header: Header) -> None:
    """Raise `ValueError` unless a blame of this step is of one of the header's variants, of parts
    in the order of a forward pass, and of positions and points that there are."""
    layers = header.model.layers
    if not 0 < blame.lane < len(header.lanes):
        raise ValueError(f"it blames lane {blame.lane}, which is no variant of the header")
    parts = [part.part for part in blame.parts]
    given_back = blame.cumulative.parts
    if not (
        all(_is_part(part, layers) for part in parts)
        and all(_depth(a) < _depth(b) for a, b in itertools.pairwise(parts))
        and set(given_back) <= set(parts)
        and len(set(given_back)) == len(given_back) == len(blame.cumulative.after)
    ):
        raise ValueError("its blame is not of the parts of the header's layers, each once")
    if blame.in_text is not None and not _fits_text(blame.in_text, step, header):
        raise ValueError("its blame does not fit the positions of the prompt and the steps before")
    if blame.in_depth is not None and not _fits_depth(blame.in_depth, layers):
        raise ValueError("its blame does not fit the header's layers")


def _is_part(part: Part, layers: int) -> bool:
    if part.layer is None:
        return part.sublayer == "outside"
    return part.sublayer != "outside" and part.layer < layers


def _depth(part: Part) -> tuple[float, bool]:
    """Order in which a forward pass reaches the parts, with what is outside of the layers last."""
    return math.inf if part.layer is None else part.layer, part.sublayer == "mlp"


def _fits_text(where: WhereInText, step: int, header: Header) -> bool:
    positions = [tried.position for tried in where.tried]
    return (
        where.prompt == len(header.prompt.tokens)
        and positions[:1] == [0]
        and all(a < b for a, b in itertools.pairwise(positions))
        and positions[-1] < where.prompt + step
        and (where.latest is None or where.latest in positions)
    )


def _fits_depth(where: WhereInDepth, layers: int) -> bool:
    """Whether all points are there but those after the attention, which a family may not have."""
    return all(
        len(points) == 2 * layers + 1 and None not in points[::2]
        for points in (where.last, where.every)
    )
