"""What each pruned part of a lane does to its next token: given back, alone, and one after another.

All forms read the same tokens, as rows of few forward passes.
"""

import itertools
import math
import time
from collections.abc import Iterator, Sequence

from torch import Tensor

from ..errors import UserError
from ..model.kl_divergence import rounding_kl
from ..progress import Progress
from ..trace.blame import Blame, Cumulative, NextToken, Part, PartBlame
from .blamed_step import BlamedStep
from .next_token import NextTokenReader, most_probable
from .pruned_lane import Form, PrunedLane


def blame_parts(pruned: PrunedLane, step: BlamedStep, progress: Progress) -> Blame:
    """Read the forms of a lane after the tokens before a step, and find what each part does.

    Raises `UserError` where the logits of the baseline, or of the lane as it is, are not numbers.
    """
    began = time.perf_counter()
    forms = _Forms(pruned, step, progress)
    baseline, lane = frozenset[Part](), frozenset(pruned.parts)
    given_back = {part: lane - {part} for part in pruned.parts}
    alone = {part: frozenset([part]) for part in pruned.parts}
    forms.read([baseline, lane, *given_back.values(), *alone.values()])
    return Blame(
        lane=step.lane,
        tokens=step.tokens,
        baseline=forms.next_tokens[baseline],
        pruned=forms.next_tokens[lane],
        floor=forms.floor(),
        parts=[
            PartBlame(
                part=part,
                given_back=forms.next_tokens[given_back[part]],
                alone=forms.next_tokens[alone[part]],
            )
            for part in pruned.parts
        ],
        cumulative=_give_back_greedily(forms, pruned.parts),
        seconds=time.perf_counter() - began,
    )


class _Forms:
    """Forms of a lane, each read once."""

    def __init__(self, pruned: PrunedLane, step: BlamedStep, progress: Progress) -> None:
        self._pruned = pruned
        self._step = step
        self._progress = progress
        self._reader: NextTokenReader | None = None
        """Reader beside the baseline's logits, a row among the forms that are read first."""
        self.next_tokens: dict[Form, NextToken] = {}

    def read(self, forms: Sequence[Form]) -> None:
        """Read those of the forms that were not; the baseline and the lane as it is come first."""
        missing = [form for form in dict.fromkeys(forms) if form not in self.next_tokens]
        if not missing:
            return
        logits = self._logits(missing)
        if (reader := self._reader) is None:
            p, q = next(logits), next(logits)
            reader = self._reader = _new_reader(p, q, self._step)
            logits = itertools.chain((p, q), logits)
        self.next_tokens |= zip(missing, map(reader, logits), strict=True)

    def floor(self) -> float | None:
        """KL(p ‖ q) in nats, q of the baseline read alone, or what rounding to the logits' dtype
        makes, if that is more: kernels may give all rows the same bits."""
        assert self._reader is not None
        (alone,) = self._logits([frozenset()])
        kl = self._reader.kl(alone)
        return None if kl is None else max(kl, rounding_kl(alone, self._step.temperature))

    def _logits(self, forms: Sequence[Form]) -> Iterator[Tensor]:
        """Logits [vocabulary] of one form after another."""
        text = self._step.text
        what = f"reading {self._pruned.need(forms, len(text), 1)}"
        rows = self._pruned.logits(
            text, forms, [len(text) - 1], lambda done: self._progress(what, done)
        )
        return (row[0] for row in rows)


def _new_reader(p: Tensor, q: Tensor, step: BlamedStep) -> NextTokenReader:
    """Reader beside the logits [vocabulary] of the baseline and of the lane as it is."""
    token, pruned = most_probable(p), most_probable(q)
    if token is None or pruned is None:
        who = "the baseline" if token is None else "the lane"
        raise UserError(
            f"the logits of {who} after these tokens are not numbers, so nothing can be blamed; "
            "choose an earlier step"
        )
    return NextTokenReader(p, (token, pruned), step.temperature, step.texts)


def _give_back_greedily(forms: _Forms, parts: Sequence[Part]) -> Cumulative:
    """Give back one part after another, each time the one that leaves the least KL(p ‖ q), until
    the baseline's token is the most probable one."""
    pruned = frozenset(parts)
    token = forms.next_tokens[frozenset()].token
    given_back: list[Part] = []
    after: list[NextToken] = []
    compared: set[Form] = set()
    while not forms.next_tokens[pruned].chooses(token):
        without = {part: pruned - {part} for part in parts if part in pruned}
        forms.read([*without.values()])
        compared |= {*without.values()}
        best = min(without, key=lambda part: _rank(forms.next_tokens[without[part]]))
        pruned = without[best]
        given_back.append(best)
        after.append(forms.next_tokens[pruned])
    return Cumulative(parts=given_back, after=after, forms=len(compared))


def _rank(after: NextToken) -> float:
    """KL(p ‖ q), infinite where a form has none."""
    return math.inf if after.kl is None else after.kl
