"""Blame over whole texts: what each pruned part of a lane costs, as a mean over positions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..model.kl_divergence import kl_divergence, log_softmax
from ..progress import Progress
from ..trace.blame import Part
from .pruned_lane import Form, FormsNeed, PrunedLane, Report


@dataclass(frozen=True)
class BlamedText:
    """Tokens that all forms of a lane read, and the positions whose next tokens count."""

    tokens: Sequence[int]
    first: int
    """First such position; all later ones count too."""


@dataclass(frozen=True)
class TextBlame:
    """Means of KL(p ‖ q), in nats, over the positions at which all forms have numbers; p is the
    baseline's distribution and q a form's."""

    positions: int
    not_comparable: int
    """Further positions, at which the logits of a form are not numbers."""
    pruned: float
    """KL of the lane as it is."""
    parts: list[Part]
    """In the order in which a forward pass reaches them."""
    given_back: list[float]
    """KL left with each part as in the baseline."""
    alone: list[float]
    """KL with only this part pruned."""


def blame_texts(
    lane: PrunedLane, texts: Sequence[BlamedText], temperature: float, progress: Progress
) -> TextBlame:
    """Read texts in the lane with each part given back, and in the baseline with each alone pruned.

    Raises `UserError` where no position can be compared.
    """
    everything: Form = frozenset(lane.parts)
    forms = [everything, *(everything - {part} for part in lane.parts)]
    forms += [frozenset({part}) for part in lane.parts]
    total, positions, not_comparable = torch.zeros(len(forms), dtype=torch.float64), 0, 0
    for number, text in enumerate(texts):
        need = lane.need([Form(), *forms], len(text.tokens), len(text.tokens) - text.first)

        def report_text(done: float, number: int = number, need: FormsNeed = need) -> None:
            progress(f"reading {need}", (number + done) / len(texts))

        kl = torch.stack([*_divergences(lane, forms, text, temperature, report_text)])
        comparable = kl.isfinite().all(dim=0)
        total += kl[:, comparable].sum(dim=1)
        positions += int(comparable.sum())
        not_comparable += int((~comparable).sum())
    if not positions:
        raise UserError(
            "nothing can be compared: at no position do the logits of all forms have a softmax"
        )
    pruned, *means = (total / positions).tolist()
    count = len(lane.parts)
    return TextBlame(*(positions, not_comparable, pruned, lane.parts), means[:count], means[count:])


def _divergences(
    lane: PrunedLane, forms: Sequence[Form], text: BlamedText, temperature: float, report: Report
) -> Iterator[Tensor]:
    """KL(p ‖ q) of each form, float64 [positions that count] on the CPU."""
    needed = range(text.first, len(text.tokens))
    baseline: Form = frozenset()
    read = lane.logits(text.tokens, [baseline, *forms], needed, report)
    log_p = log_softmax(next(read), temperature)
    for z in read:
        yield kl_divergence(log_p, z, temperature).cpu()
