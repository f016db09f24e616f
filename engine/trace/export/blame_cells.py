"""Heads and cells of the tables of a blame, for Markdown and HTML."""

from collections.abc import Iterator
from typing import NamedTuple

from ..analysis.blame import agrees, by_importance, effects
from ..analysis.blame_sentences import sentences_in_trace
from ..blame import Blame, NextToken
from ..divergence import NOT_NUMBERS
from ..figures import change, kl
from ..printable import visible
from ..trace import Trace

PART_COLUMNS = (
    "part",
    "KL, given back",
    "KL less",
    "Δ gap",
    "prefers",
    "KL, alone",
    "Δ gap",
    "prefers",
)
CUMULATIVE_COLUMNS = ("given back, with those above", "KL", "prefers")
TEXT_COLUMNS = ("caches the baseline's from position", "KL", "prefers")

NOTE = (
    "KL(p‖q) in nats, p baseline, q the form of the lane that was read. Given back: the lane with "
    "this part as in the baseline. Alone: the baseline with only this part pruned. KL less: KL of "
    "the lane less KL with the part given back, in nats; below 0, giving it back moves the lane "
    "further away. Δ gap: change of the logit of the baseline's token less that of the lane's. "
    "Numbers of different parts need not add up. ✓: the baseline's token."
)


class BlameReport(NamedTuple):
    """Blame of a lane at a step, with its title and its sentences."""

    title: str
    sentences: list[str]
    blame: Blame


def blame_reports(trace: Trace) -> Iterator[BlameReport]:
    """Blames of the open branch's steps."""
    for step in trace.steps:
        for blame in step.blames:
            whose = "the baseline's" if blame.tokens == "baseline" else "its own"
            title = f"{trace.lane_names[blame.lane]} at step {step.step}, on {whose} tokens"
            yield BlameReport(title, sentences_in_trace(blame, trace, step.step), blame)


def part_rows(blame: Blame) -> list[list[str]]:
    """Rows in the order of `PART_COLUMNS`, most important part first."""
    return [
        [
            effect.part.name,
            kl(effect.given_back.kl),
            change(effect.kl_reduction),
            change(effect.gap_given_back),
            _preferred(blame, effect.given_back),
            kl(effect.alone.kl),
            change(effect.gap_alone),
            _preferred(blame, effect.alone),
        ]
        for effect in by_importance(effects(blame))
    ]


def cumulative_rows(blame: Blame) -> list[list[str]]:
    """Rows in the order of `CUMULATIVE_COLUMNS`, after one of the lane as it is; none if no parts
    were given back one after another."""
    if not blame.cumulative.parts:
        return []
    given_back = zip(blame.cumulative.parts, blame.cumulative.after, strict=True)
    return [
        ["nothing", *_form(blame, blame.pruned)],
        *([part.name, *_form(blame, after)] for part, after in given_back),
    ]


def text_rows(blame: Blame) -> list[list[str]]:
    """Rows in the order of `TEXT_COLUMNS`; none if the text was not looked at."""
    tried = blame.in_text.tried if blame.in_text else []
    return [[str(one.position), *_form(blame, one.next)] for one in tried]


def _form(blame: Blame, form: NextToken) -> list[str]:
    return [kl(form.kl), _preferred(blame, form)]


def _preferred(blame: Blame, form: NextToken) -> str:
    if form.not_numbers:
        return NOT_NUMBERS
    return f"“{visible(form.text)}”" + " ✓" * agrees(blame, form)
