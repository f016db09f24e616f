"""The words of the blame screen: its sentences, and what the help says of it."""

from ...engine.trace.blame import BlamedTokens, Causes
from ...engine.trace.divergence import first_divergence
from ..moment import Moment
from ..widgets.blame_map import AGAINST, UNPRUNED
from ..widgets.blame_text import FROM_HERE
from ..widgets.item_list import BETTER, OTHER
from ..widgets.panel import NOT_FINITE
from .help_text import Table

WHAT: dict[Causes, str] = {
    "parts": "which parts are to blame",
    "text": "where in the text it begins",
    "depth": "where in depth it is lost",
}

BLAME_TABLES: list[Table] = [
    (
        "Words",
        [
            ("part", "a pruned attention or MLP with its norms, or all outside of the layers"),
            ("given back", "the lane with this part as in the baseline"),
            ("pruned alone", "the baseline with only this part pruned"),
            ("one after another", "each time the part that leaves the least KL, until the token"),
            ("one after another", "of the baseline is back"),
            ("KL(p‖q)", "of the next token, p baseline, q the lane so changed, in nats"),
            ("less KL", "KL of the lane less that with the part given back; need not add up"),
            ("Δ gap z", "logit of the baseline's token less that of the lane's: what it gains"),
            ("where in the text", "from which position on keys and values are the baseline's"),
            ("where in depth", "the baseline's residual stream put in there, at the last position"),
            ("where in depth", "or at all of them"),
        ],
    ),
    (
        "Marks",
        [
            (UNPRUNED, "not pruned in this lane"),
            (BETTER, "the baseline's token is the most probable one"),
            (OTHER, "another is"),
            (AGAINST, "given back, the lane is further from the baseline"),
            (NOT_FINITE, "not a finite number"),
            (FROM_HERE, "from here on the caches must be the baseline's"),
        ],
    ),
]


def same_history(moment: Moment) -> bool:
    """Whether the baseline and the lane have read the same tokens before the cursor's step."""
    if moment.header.context == "forced":
        return True
    first = first_divergence(moment.steps[: moment.cursor], moment.lane)
    return first is None


def reading_clause(moment: Moment, tokens: BlamedTokens) -> str:
    """Whose tokens all forms read."""
    if same_history(moment):
        return "both read the same tokens"
    return "on the baseline's tokens" if tokens == "baseline" else "on the lane's tokens"


def not_blamable(moment: Moment, keys: tuple[str, str]) -> str:
    """Sentence on why there is nothing to blame at a moment; empty if there is. `keys` select the
    lane below and take a step."""
    down, forward = keys
    step = moment.step
    if moment.lane == 0:
        return f"The baseline is not pruned, so there is nothing to blame: {down} selects a lane."
    if step is None:
        return f"There is no step to explain yet: {forward} takes one."
    return ""
