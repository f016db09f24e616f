"""What a blame found of a step: which pruned parts of a lane change its next token, and where.

The tokens before the step are fixed, and so is p, the baseline's distribution after them. A *form*
of a lane is the lane with only some of its parts pruned; q is its distribution after the same
tokens, at the session's temperature T.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

Int = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Integer that every JSON reader and every export format holds exactly."""

BlamedTokens = Literal["baseline", "lane"]
"""Whose tokens all forms read: the baseline's, or the lane's own."""

Causes = Literal["parts", "text", "depth"]
"""What is looked for: the parts to blame, from where on in the text, or where in depth."""


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    """Base of a part of a record."""


class Part(Plain, frozen=True):
    """A sublayer of a lane, with the norms before and after it, or all that is outside of the
    layers: embeddings, final norm and head."""

    sublayer: Literal["attention", "mlp", "outside"]
    layer: Int | None = None
    """None outside of the layers."""

    @property
    def name(self) -> str:
        """Name in a sentence: `attention 25`, `MLP 4`."""
        if self.layer is None:
            return "what is outside of the layers"
        return f"{'MLP' if self.sublayer == 'mlp' else 'attention'} {self.layer}"


class NextToken(Plain, frozen=True):
    """The next token in a form of a lane."""

    kl: float | None
    """KL(p ‖ q), in nats."""
    gap: float | None
    """Logit of the baseline's most probable token less that of the lane's, in the form; positive
    where the form prefers the baseline's."""
    token: Int
    """Most probable token in q; of no meaning, with an empty text and no numbers, in a form that
    has no softmax."""
    text: str
    not_numbers: bool = False
    """Whether the form's logits have NaN, infinity, or nothing but minus infinity."""

    def chooses(self, token: int) -> bool:
        """Whether the token is the most probable one."""
        return self.token == token and not self.not_numbers


class PartBlame(Plain, frozen=True):
    """What one pruned part does to the next token."""

    part: Part
    given_back: NextToken
    """The lane with this part as in the baseline."""
    alone: NextToken
    """The baseline with only this part pruned."""


class Cumulative(Plain, frozen=True):
    """Parts given back one after another, each time the one that leaves the least KL(p ‖ q), until
    the baseline's token is the most probable one."""

    parts: list[Part]
    after: list[NextToken]
    """The next token after each of them, and those before it, are given back."""
    forms: Int
    """Forms that were read for it, those given back alone included."""


class PatchedPosition(Plain, frozen=True):
    """The lane's last token read over caches that are the baseline's from a position on."""

    position: Int
    """First position whose keys and values are the baseline's; at the last position, that of the
    token that is read, none are: the lane as it is."""
    next: NextToken


class WhereInText(Plain, frozen=True):
    """From which position on the caches must be the baseline's for its token to come back."""

    prompt: Int
    """Number of tokens of the prompt."""
    tried: list[PatchedPosition]
    """In the order of their positions. Position 0 is among them, where all caches are the
    baseline's and only the reading of the last token is the lane's; so is the last position."""
    latest: Int | None
    """Latest position that brings the token back, by bisection; None if not even position 0
    does: how the lane reads the last token is then enough to lose it."""


class WhereInDepth(Plain, frozen=True):
    """The lane with the baseline's residual stream put in at one point of its depth: before
    attention 0, and after each sublayer, in the order attention 0, MLP 0, attention 1, …

    Both lists have 2 · layers + 1 points. Where attention and MLP run in parallel there is no
    stream between them, and the point after the attention is None.
    """

    last: list[NextToken | None]
    """With the stream of the last position put in."""
    every: list[NextToken | None]
    """With the streams of all positions put in. The final norm and the head stay the lane's."""


class Blame(Plain, frozen=True):
    """What was found of one lane at one step."""

    lane: Int
    tokens: BlamedTokens
    baseline: NextToken
    """p itself: `kl` is 0."""
    pruned: NextToken
    """The lane as it is, with nothing given back."""
    floor: float | None
    """KL(p ‖ q), in nats, that rounding alone makes: with everything given back, read alone, or of
    logits that are rounded to their dtype, if that is more."""
    parts: list[PartBlame]
    """In the order in which a forward pass reaches them, `outside` last."""
    cumulative: Cumulative
    seconds: float
    """Wall time of all that was read for it."""
    in_text: WhereInText | None = None
    in_depth: WhereInDepth | None = None


def find_blame(blames: Sequence[Blame], lane: int, tokens: BlamedTokens) -> Blame | None:
    """The blame of a lane on these tokens, if it was recorded."""
    return next((b for b in blames if (b.lane, b.tokens) == (lane, tokens)), None)


def with_blame(blames: Sequence[Blame], blame: Blame) -> list[Blame]:
    """The blames with this one in the place of one of the same lane and tokens."""
    others = [b for b in blames if (b.lane, b.tokens) != (blame.lane, blame.tokens)]
    return [*others, blame]
