"""Sentences that a blame amounts to, for every screen, report and terminal.

"Given back" and "pruned alone" are different claims, and nothing is summed: neither what parts give
back nor KL(p ‖ q) of parts pruned alone need add up to that of the lane. A form prefers its most
probable token; whether it was drawn at that step is another matter.
"""

from collections.abc import Callable, Sequence

from ..blame import Blame, NextToken, WhereInDepth, WhereInText
from ..divergence import differs, first_divergence
from ..figures import nats
from ..printable import visible
from ..records import Header, Step
from ..trace import Trace
from .blame import (
    PartEffect,
    agrees,
    below_floor,
    by_importance,
    by_kl_alone,
    effects,
    half_point,
    point_name,
    return_point,
    rounding,
)

MOST_NAMED = 4
"""Parts that a sentence names, at most; it counts the rest."""


def verdict(blame: Blame) -> str:
    """The finding in one sentence."""
    if blame.baseline.not_numbers or blame.pruned.not_numbers:
        who = "baseline" if blame.baseline.not_numbers else "lane"
        return f"The logits of the {who} are not numbers at this step: nothing can be blamed."
    if below_floor(blame, blame.pruned):
        return _nothing_to_blame(blame)
    if not blame.parts:
        return f"{_preferences(blame)}; no part of the lane was given back."
    best = by_importance(effects(blame))
    if len(best) == 1:
        return _capital(_only_part(blame, best[0]))
    if agrees(blame, blame.pruned):
        return f"{_preferences(blame)}; {_lowers_most(blame, best[0])}."
    returning = next((effect for effect in best if effect.returns), None)
    return _capital(_returns(blame, returning)) if returning else _together(blame)


def sentences(blame: Blame, step: int) -> list[str]:
    """The finding in full, the verdict first; `step` is the one that was blamed."""
    found = [verdict(blame)]
    broken = blame.baseline.not_numbers or blame.pruned.not_numbers
    if broken or below_floor(blame, blame.pruned):
        return found
    if len(blame.parts) > 1:
        every = effects(blame)
        found += [*_given_back(blame, by_importance(every)), *_alone(blame, by_kl_alone(every))]
    if blame.in_text is not None:
        found.append(where_in_text(blame, blame.in_text, step))
    if blame.in_depth is not None:
        found += where_in_depth(blame, blame.in_depth)
    return found


def chosen_after_another_text(blame: Blame, header: Header, steps: list[Step], number: int) -> str:
    """Sentence on a token that differs at step `number` though all forms prefer the same one: it
    was chosen after the other text. Empty where that is not so."""
    if not agrees(blame, blame.pruned) or header.context == "forced":
        return ""
    other = blame.lane if blame.tokens == "baseline" else 0
    token, since = steps[number].lanes[other], first_divergence(steps[:number], blame.lane)
    if token is None or token.not_numbers or token.forced or since is None:
        return ""
    if not differs(steps[number], blame.lane):
        return ""
    whose = "lane" if other else "baseline"
    return (
        f"The {whose}'s “{visible(token.text)}” was chosen after its own text, which is another "
        f"from step {since} on: blame step {since} for that."
    )


def sentences_in_trace(blame: Blame, trace: Trace, step: int) -> list[str]:
    """The finding in full, with what the trace says of the tokens that were chosen at the step."""
    first, *others = sentences(blame, step)
    after = chosen_after_another_text(blame, trace.header, trace.steps, step)
    return [first, *filter(None, [after]), *others]


def position_words(blame: Blame, where: WhereInText, position: int, step: int) -> str:
    """Where a position of the text is, as seen from the step that was blamed."""
    if position < where.prompt:
        return f"in the prompt, positions 0 to {where.prompt - 1}"
    count = step - (position - where.prompt)
    whose = "the baseline's text" if blame.tokens == "baseline" else "the lane's text"
    return f"{count} {'token' if count == 1 else 'tokens'} before this step's, in {whose}"


# -- verdicts -------------------------------------------------------------------------------------


def _nothing_to_blame(blame: Blame) -> str:
    token = _quoted(blame.baseline)
    first = (
        f"Both prefer {token}"
        if agrees(blame, blame.pruned)
        else f"Rounding decides between {token} and {_quoted(blame.pruned)}"
    )
    return (
        f"{first}, and there is nothing to blame: KL(p‖q) of the lane is {nats(blame.pruned.kl)}, "
        f"and rounding alone makes {nats(blame.floor)}."
    )


def _only_part(blame: Blame, only: PartEffect) -> str:
    token, whole = _quoted(blame.baseline), f"KL(p‖q) {_nats(blame.pruned.kl)}"
    first = f"{only.part.name} is all that the lane prunes, and makes all of its {whole}"
    if agrees(blame, blame.pruned):
        return f"{first}; both prefer {token}."
    if only.returns:
        return f"{first}; given back, {token} returns."
    return f"{first}; even given back, {token} does not return: rounding decides."


def _returns(blame: Blame, first: PartEffect) -> str:
    """Verdict where this part brings the baseline's token back, and of those that do leaves the
    least KL(p ‖ q)."""
    token, name = _quoted(blame.baseline), first.part.name
    alone, lane, left = first.alone.kl, blame.pruned.kl, first.given_back.kl
    if alone is None or lane is None:
        return (
            f"given back, {name} returns {token}: KL(p‖q) of the lane is {_nats(lane)}, then "
            f"{_nats(left)}; with {name} pruned alone it is {_nats(alone)}."
        )
    return (
        f"{name} by itself makes KL(p‖q) {nats(alone)}, the lane {nats(lane)}; given back, {token} "
        f"returns, and {nats(left)} are left."
    )


def _together(blame: Blame) -> str:
    """Verdict where no one part brings the baseline's token back."""
    token, cumulative = _quoted(blame.baseline), blame.cumulative
    if not cumulative.after:
        return f"No one part returns {token}."
    last, count = cumulative.after[-1], len(cumulative.parts)
    everything = count == len(blame.parts)
    every = "both" if count == 2 else f"all {count}"
    left = f"KL(p‖q) is then {_nats(last.kl)}, of the lane {_nats(blame.pruned.kl)}"
    if agrees(blame, last):
        names = every if everything else _listed([part.name for part in cumulative.parts])
        # Of two parts, every smaller set was tried.
        greedy = " They were added greedily: not every smaller set was tried." * (count > 2)
        return f"No one part returns {token}; {names} together do. {_capital(left)}.{greedy}"
    if everything:
        return f"Not even {every} parts given back return {token}: rounding decides. {left}."
    together = f", nor do the first {count} together" * (count > 1)
    return f"No one part returns {token}{together}. {left}."


# -- parts ----------------------------------------------------------------------------------------


def _given_back(blame: Blame, best: Sequence[PartEffect]) -> list[str]:
    """Sentences on parts given back one at a time; `best` is in the order of what they leave."""
    found: list[str] = []
    first = best[0]
    token = _quoted(blame.baseline)
    if not agrees(blame, blame.pruned):
        returning = [effect for effect in best if effect.returns]
        if not first.returns:
            then = (
                ""
                if first.given_back.kl is None
                else f", and {_preferred(blame, first.given_back)}"
            )
            found.append(f"{_capital(_lowers_most(blame, first))}{then}.")
        if others := returning[1:]:
            verb = "returns" if len(others) == 1 else "return"
            found.append(
                f"Given back instead, one at a time, {_with_kl(others, _of_given_back)} {verb} "
                f"{token} too."
            )
    worse = [e for e in reversed(best) if (e.kl_reduction or 0.0) < -rounding(blame)]
    if worse:
        verb = "moves" if len(worse) == 1 else "move"
        found.append(
            f"Given back one at a time, {_with_kl(worse, _of_given_back)} {verb} the lane further "
            "from the baseline."
        )
    return found


def _lowers_most(blame: Blame, first: PartEffect) -> str:
    """Clause on the part that, given back by itself, leaves the least KL(p ‖ q)."""
    lane, left = blame.pruned.kl, first.given_back.kl
    if lane is None:
        if left is None:
            return "no one part given back makes KL(p‖q) finite"
        return f"given back, {first.part.name} makes KL(p‖q) finite, {nats(left)}"
    if (first.kl_reduction or 0.0) <= rounding(blame):
        return f"no one part given back lowers KL(p‖q) of {nats(lane)} by more than rounding could"
    return f"given back, {first.part.name} lowers KL(p‖q) most, from {nats(lane)} to {nats(left)}"


def _alone(blame: Blame, worst: Sequence[PartEffect]) -> list[str]:
    """Sentences on parts pruned alone; `worst` is in the order of what they make."""
    if all(below_floor(blame, effect.alone) for effect in worst):
        return ["Pruned alone, no part moves the baseline by more than rounding does."]
    broken = [effect for effect in worst if effect.alone.kl is None]
    found: list[str] = []
    if broken:
        verb = "makes" if len(broken) == 1 else "make"
        found.append(f"Pruned alone, {_named(broken)} {verb} KL(p‖q) not finite.")
    finite = worst[len(broken) :]
    if not finite:
        return found
    first, token = finite[0], _quoted(blame.baseline)
    departing = [effect for effect in finite if effect.departs]
    most = (
        f"{'Of the others, p' if broken else 'P'}runed alone, {first.part.name} moves the baseline "
        f"most, to KL(p‖q) {nats(first.alone.kl)}"
    )
    if not departing:
        return [*found, f"{most}; none takes {token} away."]
    if departing == [first]:
        return [*found, f"{most}, and is the one that takes {token} away."]
    verb = "takes" if len(departing) == 1 else "take"
    names = _with_kl(departing, lambda effect: effect.alone)
    return [*found, f"{most}; {names} {verb} {token} away."]


# -- where ----------------------------------------------------------------------------------------


def where_in_text(blame: Blame, where: WhereInText, step: int) -> str:
    """Sentence on where in the text the fault begins."""
    token, caches = _quoted(blame.baseline), where.tried[0].next
    if agrees(blame, blame.pruned):
        return (
            f"In the text: KL(p‖q) is {_nats(blame.pruned.kl)}, and {_nats(caches.kl)} where the "
            "lane reads the last token over the baseline's caches."
        )
    if where.latest is None:
        return (
            f"In the text: reading the last token is enough to lose {token}; even over the "
            f"baseline's caches, {_preferred(blame, caches)}, KL(p‖q) {_nats(caches.kl)}."
        )
    # At the last position none are the baseline's: that is the lane as it is.
    *tried, as_it_is = where.tried
    if agrees(blame, as_it_is.next):
        return f"In the text: over its own caches the lane prefers {token} too: rounding decides."
    later = next((one.position for one in tried if one.position > where.latest), None)
    not_enough = "" if later is None else f"; from position {later} on is not enough"
    return (
        f"In the text: {token} returns where the caches from position {where.latest} on "
        f"({position_words(blame, where, where.latest, step)}) are the baseline's{not_enough}. "
        f"With all of them the baseline's, KL(p‖q) is {_nats(caches.kl)}."
    )


def where_in_depth(blame: Blame, where: WhereInDepth) -> list[str]:
    """Sentences on the baseline's residual stream put in at one point of the depth."""
    if blame.pruned.kl is None:
        return []
    half = f"half of {nats(blame.pruned.kl)}"
    found: list[str] = []
    for points, positions in ((where.every, "all positions"), (where.last, "the last position")):
        at_half, back = half_point(blame, points), return_point(blame, points)
        what = (
            f"KL(p‖q) is above {half} even after the last sublayer"
            if at_half is None
            else f"KL(p‖q) is at most {half} from {point_name(at_half)} on"
        )
        if not agrees(blame, blame.pruned):
            token = _quoted(blame.baseline)
            what += (
                f", and {token} has not returned after the last sublayer"
                if back is None
                else f", and {token} returns from {point_name(back)} on"
            )
        found.append(
            f"In depth, with the baseline's residual stream put in at {positions}: {what}."
        )
    return found


# -- words ----------------------------------------------------------------------------------------


def _preferences(blame: Blame) -> str:
    if agrees(blame, blame.pruned):
        return f"Both prefer {_quoted(blame.baseline)}"
    return (
        f"The baseline prefers {_quoted(blame.baseline)}, the lane {_quoted(blame.pruned)}, at "
        f"KL(p‖q) {_nats(blame.pruned.kl)}"
    )


def _preferred(blame: Blame, form: NextToken) -> str:
    """Clause on the token of a form that does not prefer the baseline's."""
    if form.not_numbers:
        return "its logits are not numbers"
    if blame.pruned.chooses(form.token):
        return f"{_quoted(form)} stays"
    return f"it prefers {_quoted(form)}"


def _of_given_back(effect: PartEffect) -> NextToken:
    return effect.given_back


def _with_kl(effects: Sequence[PartEffect], form: Callable[[PartEffect], NextToken]) -> str:
    """Names of parts, each with KL(p ‖ q) of its form."""
    return _listed([f"{effect.part.name} ({_nats(form(effect).kl)})" for effect in effects])


def _named(effects: Sequence[PartEffect]) -> str:
    return _listed([effect.part.name for effect in effects])


def _listed(names: Sequence[str]) -> str:
    """Names in a row; of too many, the first ones and the number of the others."""
    if len(names) > MOST_NAMED:
        names = [*names[:MOST_NAMED], f"{len(names) - MOST_NAMED} more"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _quoted(form: NextToken) -> str:
    return f"“{visible(form.text)}”"


def _nats(value: float | None) -> str:
    return "not finite" if value is None else nats(value)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
