"""What a blame amounts to: numbers of its parts, and sentences that claim no more than was read."""

import math

import msgspec
import pytest
from prunetui.engine.trace.analysis.blame import (
    by_importance,
    by_kl_alone,
    effects,
    half_point,
    point_name,
    return_point,
    rounding,
)
from prunetui.engine.trace.analysis.blame_sentences import (
    chosen_after_another_text,
    sentences,
    sentences_in_trace,
    verdict,
)
from prunetui.engine.trace.blame import NextToken, WhereInDepth

from ..support.blames import (
    NOT_NUMBERS,
    OUTSIDE,
    attention,
    blame_of,
    in_text,
    make_blame,
    mlp,
    next_token,
    part_blame,
)
from ..support.traces import make_trace

BACK, STAYS = 1, 2
"""Tokens: the baseline's, “ clips”, and the lane's, “ friends”."""
LANE = next_token(3.4, STAYS)


def both(
    part: int,
    given_back: float | None,
    token: int,
    alone: float | None = 0.1,
    alone_token: int = BACK,
):
    return part_blame(
        attention(part), next_token(given_back, token), next_token(alone, alone_token)
    )


def test_a_part_gives_back_the_kl_that_it_takes_from_the_lane() -> None:
    first, worse, outside = effects(make_blame())
    assert [first.kl_reduction, worse.kl_reduction] == [3.5 - 0.25, 3.5 - 4.0]
    assert [first.gap_given_back, worse.gap_given_back] == [1.0 - -2.0, -2.5 - -2.0]
    assert [first.gap_alone, worse.gap_alone] == [-0.5 - 1.5, 1.25 - 1.5]
    assert (outside.kl_reduction, outside.gap_alone) == (0.25, None)
    assert [effect.returns for effect in (first, worse, outside)] == [True, False, False]
    # Logits that are not numbers tell no token.
    assert [effect.departs for effect in (first, worse, outside)] == [True, False, False]
    assert [e.part for e in by_importance([worse, outside, first])] == [
        attention(1),
        OUTSIDE,
        mlp(1),
    ]
    assert [e.part for e in by_kl_alone([worse, outside, first])] == [OUTSIDE, attention(1), mlp(1)]


def test_numbers_that_are_not_finite_give_nothing_back_and_stand_last() -> None:
    none = blame_of(next_token(None, STAYS), [both(0, 0.5, BACK), both(1, None, BACK)])
    first, broken = effects(none)
    assert (first.kl_reduction, first.returns, broken.returns) == (None, True, True)
    assert by_importance([broken, first]) == [first, broken]
    huge = blame_of(next_token(1e308, STAYS), [both(0, -1e308, BACK)])
    assert effects(huge)[0].kl_reduction is None


def test_where_both_prefer_the_same_token_there_is_no_gap_and_nothing_returns() -> None:
    agreeing = msgspec.structs.replace(make_blame(), pruned=next_token(0.5, BACK, 0.0))
    for effect in effects(agreeing):
        assert (effect.gap_given_back, effect.gap_alone, effect.returns) == (None, None, False)


def test_rounding_moves_a_kl_by_the_root_of_twice_the_floor() -> None:
    assert rounding(blame_of(LANE, [], floor=0.02)) == pytest.approx(0.2)
    assert rounding(blame_of(LANE, [], floor=None)) == 0
    # The floor of noise with the deviation 0.2, and what it does to another KL, by the formulas.
    p = [0.5, 0.25, 0.25]
    z = [math.log(share) for share in p]
    noise = [0.2, -0.2, -0.2]
    assert kl_of(p, z, noise) == pytest.approx(0.02, rel=0.05)
    far = [1.0, -1.0, 0.0]
    moved = kl_of(p, z, [f + n for f, n in zip(far, noise, strict=True)]) - kl_of(p, z, far)
    assert 0 < moved < 0.2


def kl_of(p: list[float], z: list[float], change: list[float]) -> float:
    """KL(p ‖ q), where the logits of q are z and this change."""
    logits = [a + b for a, b in zip(z, change, strict=True)]
    total = math.log(math.fsum(map(math.exp, logits)))
    return math.fsum(s * (math.log(s) - (x - total)) for s, x in zip(p, logits, strict=True))


def test_points_are_where_all_later_ones_hold_too() -> None:
    blame = blame_of(LANE, [both(0, 0.0, BACK)])

    def points(*kls: float | None, tokens: str = "") -> list[NextToken | None]:
        return [next_token(kl, int(t)) for kl, t in zip(kls, tokens or "1" * len(kls), strict=True)]

    assert half_point(blame, points(3.4, 1.7, 1.8, 1.7, 0.0)) == 3
    assert half_point(blame, points(1.7, 0.0)) == 0
    assert half_point(blame, points(0.0, None)) is None
    assert half_point(blame, points(3.4, 1.8)) is None
    assert half_point(msgspec.structs.replace(blame, pruned=next_token(None)), points(0.0)) is None
    assert return_point(blame, points(3.0, 2.0, 1.0, 0.0, tokens="2121")) == 3
    assert return_point(blame, [*points(3.0), NOT_NUMBERS]) is None
    # A point that a family does not have says nothing of those around it.
    assert half_point(blame, [*points(3.0, 1.0), None, *points(0.0)]) == 1
    assert half_point(blame, [*points(3.0), None, *points(0.0)]) == 2
    names = ["before attention 0", "after attention 0", "after MLP 0", "after attention 1"]
    assert [*map(point_name, range(4))] == names


VERDICTS = {
    "one returns": (
        blame_of(LANE, [both(25, 0.31, BACK, 3.1, STAYS), both(4, 3.0, STAYS)]),
        "Attention 25 by itself makes KL(p‖q) 3.10 nats, the lane 3.40 nats; given back, “ clips” "
        "returns, and 0.310 nats are left.",
    ),
    "the best does not, another does": (
        blame_of(LANE, [both(25, 0.31, 3), both(4, 0.6, BACK, 4.5)]),
        "Attention 4 by itself makes KL(p‖q) 4.50 nats, the lane 3.40 nats; given back, “ clips” "
        "returns, and 0.600 nats are left.",
    ),
    "two together": (
        blame_of(
            LANE,
            [both(9, 3.0, STAYS), both(25, 2.0, STAYS), both(26, 3.4, STAYS)],
            [(attention(25), next_token(2.0, STAYS)), (attention(9), next_token(0.2))],
        ),
        "No one part returns “ clips”; attention 25 and attention 9 together do. KL(p‖q) is then "
        "0.200 nats, of the lane 3.40 nats.",
    ),
    "all three": (
        blame_of(
            LANE,
            [both(part, 3.0, STAYS) for part in range(3)],
            [(attention(part), next_token(1.0, STAYS)) for part in range(2)]
            + [(attention(2), next_token(0.0))],
        ),
        "No one part returns “ clips”; all 3 together do. KL(p‖q) is then 0 nats, of the lane 3.40 "
        "nats. They were added greedily: not every smaller set was tried.",
    ),
    "not even all": (
        blame_of(
            LANE,
            [both(0, 3.0, STAYS), both(1, 3.0, STAYS)],
            [(attention(part), next_token(1e-9, STAYS)) for part in range(2)],
        ),
        "Not even both parts given back return “ clips”: rounding decides. KL(p‖q) is then 1.0e-9 "
        "nats, of the lane 3.40 nats.",
    ),
    "the search has no end": (
        blame_of(
            LANE,
            [both(part, 3.0, STAYS) for part in range(3)],
            [(attention(part), next_token(3.0 - part, STAYS)) for part in range(2)],
        ),
        "No one part returns “ clips”, nor do the first 2 together. KL(p‖q) is then 2.00 nats, of "
        "the lane 3.40 nats.",
    ),
    "the same token": (
        blame_of(next_token(0.34), [both(0, 0.4, BACK), both(1, 0.02, BACK)]),
        "Both prefer “ clips”; given back, attention 1 lowers KL(p‖q) most, from 0.340 nats to "
        "0.0200 nats.",
    ),
    "the same token, and no part lowers": (
        blame_of(next_token(0.34), [both(0, 0.34, BACK), both(1, 0.33996, BACK)]),
        "Both prefer “ clips”; no one part given back lowers KL(p‖q) of 0.340 nats by more than "
        "rounding could.",
    ),
    "the only part": (
        blame_of(LANE, [both(25, 0.0, BACK, 3.4, STAYS)]),
        "Attention 25 is all that the lane prunes, and makes all of its KL(p‖q) 3.40 nats; given "
        "back, “ clips” returns.",
    ),
    "the only part, the same token": (
        blame_of(next_token(0.34), [both(25, 0.0, BACK)]),
        "Attention 25 is all that the lane prunes, and makes all of its KL(p‖q) 0.340 nats; both "
        "prefer “ clips”.",
    ),
    "the only part, a tie": (
        blame_of(LANE, [both(25, 1e-9, STAYS)]),
        "Attention 25 is all that the lane prunes, and makes all of its KL(p‖q) 3.40 nats; even "
        "given back, “ clips” does not return: rounding decides.",
    ),
    "below the floor": (
        blame_of(next_token(1e-9), [both(0, 0.0, BACK), both(1, 0.0, BACK)]),
        "Both prefer “ clips”, and there is nothing to blame: KL(p‖q) of the lane is 1.0e-9 nats, "
        "and rounding alone makes 1.0e-9 nats.",
    ),
    "a tie below the floor": (
        blame_of(next_token(1e-9, STAYS), [both(0, 0.0, BACK), both(1, 0.0, BACK)]),
        "Rounding decides between “ clips” and “ friends”, and there is nothing to blame: KL(p‖q) "
        "of the lane is 1.0e-9 nats, and rounding alone makes 1.0e-9 nats.",
    ),
    "the lane is not finite": (
        blame_of(next_token(None, STAYS), [both(0, 0.1, BACK, None), both(1, None, STAYS)]),
        "Given back, attention 0 returns “ clips”: KL(p‖q) of the lane is not finite, then 0.100 "
        "nats; with attention 0 pruned alone it is not finite.",
    ),
    "the lane is not finite, the same token": (
        blame_of(next_token(None), [both(0, 0.1, BACK, None), both(1, None, BACK)]),
        "Both prefer “ clips”; given back, attention 0 makes KL(p‖q) finite, 0.100 nats.",
    ),
    "no one part makes it finite": (
        blame_of(
            next_token(None, STAYS),
            [both(0, None, STAYS), both(1, None, STAYS)],
            [(attention(0), next_token(None, STAYS)), (attention(1), next_token(0.0))],
        ),
        "No one part returns “ clips”; both together do. KL(p‖q) is then 0 nats, of the lane not "
        "finite.",
    ),
    "the baseline's are not numbers": (
        msgspec.structs.replace(make_blame(), baseline=NOT_NUMBERS),
        "The logits of the baseline are not numbers at this step: nothing can be blamed.",
    ),
    "the lane's are not numbers": (
        msgspec.structs.replace(make_blame(), pruned=NOT_NUMBERS),
        "The logits of the lane are not numbers at this step: nothing can be blamed.",
    ),
    "no part was given back": (
        blame_of(LANE, []),
        "The baseline prefers “ clips”, the lane “ friends”, at KL(p‖q) 3.40 nats; no part of the "
        "lane was given back.",
    ),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_a_verdict_claims_what_was_read(name: str) -> None:
    blame, sentence = VERDICTS[name]
    assert verdict(blame) == sentence
    assert sentences(blame, 8)[0] == sentence


@pytest.mark.parametrize("name", ["below the floor", "the baseline's are not numbers"])
def test_where_nothing_is_to_blame_nothing_else_is_said(name: str) -> None:
    assert len(sentences(VERDICTS[name][0], 8)) == 1


def test_a_token_that_no_part_turned_follows_another_text() -> None:
    trace = make_trace(13)  # lane 1 differs from step 4 on
    both_prefer = blame_of(next_token(0.34), ONE)
    said = (
        "The lane's “ word1” was chosen after its own text, which is another from step 4 on: blame "
        "step 4 for that."
    )
    assert sentences_in_trace(both_prefer, trace, 12)[1] == said
    own = msgspec.structs.replace(both_prefer, tokens="lane")
    assert sentences_in_trace(own, trace, 12)[1].startswith("The baseline's “ word0” was chosen")
    assert sentences_in_trace(both_prefer, trace, 4) == sentences(both_prefer, 4)
    turned = blame_of(LANE, ONE)
    assert sentences_in_trace(turned, trace, 12) == sentences(turned, 12)
    forced = msgspec.structs.replace(trace.header, context="forced")
    assert chosen_after_another_text(both_prefer, forced, trace.steps, 12) == ""
    baseline, lane, other = trace.steps[12].lanes
    assert lane is not None
    forced_lanes = [baseline, msgspec.structs.replace(lane, forced=True), other]
    by_force = msgspec.structs.replace(trace.steps[12], lanes=forced_lanes)
    steps = [*trace.steps[:12], by_force]
    assert chosen_after_another_text(both_prefer, trace.header, steps, 12) == ""
    same = msgspec.structs.replace(trace.steps[12], lanes=[trace.steps[12].lanes[0]] * 3)
    steps = [*trace.steps[:12], same]
    assert chosen_after_another_text(both_prefer, trace.header, steps, 12) == ""


def test_parts_that_return_the_token_too_or_move_the_lane_away_are_named() -> None:
    parts = [both(25, 0.31, BACK), both(4, 0.6, BACK), both(9, 3.9, STAYS), both(10, 4.4, STAYS)]
    assert sentences(blame_of(LANE, parts), 8)[1:3] == [
        "Given back instead, one at a time, attention 4 (0.600 nats) returns “ clips” too.",
        "Given back one at a time, attention 10 (4.40 nats) and attention 9 (3.90 nats) move the "
        "lane further from the baseline.",
    ]
    many = [both(part, 0.25 + part, BACK) for part in range(7)]
    assert sentences(blame_of(next_token(9.0, STAYS), many), 8)[1] == (
        "Given back instead, one at a time, attention 1 (1.25 nats), attention 2 (2.25 nats), "
        "attention 3 (3.25 nats), attention 4 (4.25 nats) and 2 more return “ clips” too."
    )


def test_a_part_that_lowers_most_without_returning_the_token_is_named() -> None:
    for token, clause in (
        (STAYS, "“ friends” stays"),
        (3, "it prefers “␛]0;x␇</td>|`[b]<U+202E>”"),
    ):
        blame = blame_of(LANE, [both(25, 0.31, token), both(4, 0.6, BACK)])
        assert sentences(blame, 8)[1] == (
            "Given back, attention 25 lowers KL(p‖q) most, from 3.40 nats to 0.310 nats, and "
            f"{clause}."
        )


@pytest.mark.parametrize(
    ("alone", "sentence"),
    [
        (
            [(3.1, STAYS), (0.2, BACK)],
            "Pruned alone, attention 0 moves the baseline most, to KL(p‖q) 3.10 nats, and is the "
            "one that takes “ clips” away.",
        ),
        (
            [(0.2, STAYS), (3.1, BACK)],
            "Pruned alone, attention 1 moves the baseline most, to KL(p‖q) 3.10 nats; attention 0 "
            "(0.200 nats) takes “ clips” away.",
        ),
        (
            [(0.2, BACK), (3.1, BACK)],
            "Pruned alone, attention 1 moves the baseline most, to KL(p‖q) 3.10 nats; none takes "
            "“ clips” away.",
        ),
        (
            [(0.0, BACK), (1e-9, STAYS)],
            "Pruned alone, no part moves the baseline by more than rounding does.",
        ),
        (
            [(None, BACK), (None, 3)],
            "Pruned alone, attention 0 and attention 1 make KL(p‖q) not finite.",
        ),
    ],
)
def test_what_parts_do_alone(alone: list[tuple[float | None, int]], sentence: str) -> None:
    parts = [both(at, 0.5 + at, BACK, *one) for at, one in enumerate(alone)]
    assert sentences(blame_of(LANE, parts), 8)[-1] == sentence


def test_parts_that_are_not_finite_alone_are_told_apart() -> None:
    parts = [both(0, 0.5, BACK, None, 3), both(1, 0.6, BACK, 2.0, STAYS)]
    assert sentences(blame_of(LANE, parts), 8)[-2:] == [
        "Pruned alone, attention 0 makes KL(p‖q) not finite.",
        "Of the others, pruned alone, attention 1 moves the baseline most, to KL(p‖q) 2.00 nats, "
        "and is the one that takes “ clips” away.",
    ]


ONE = [both(25, 0.0, BACK)]


@pytest.mark.parametrize(
    ("tokens", "where", "sentence"),
    [
        (
            "baseline",
            in_text(45, {0: next_token(0.2), 45: next_token(0.9), 46: LANE, 47: LANE}, prompt=40),
            "“ clips” returns where the caches from position 45 on (3 tokens before this step's, "
            "in the baseline's text) are the baseline's; from position 46 on is not enough. "
            "With all of them the baseline's, KL(p‖q) is 0.200 nats.",
        ),
        (
            "lane",
            in_text(46, {0: next_token(0.2), 46: next_token(0.9), 47: LANE}, prompt=40),
            "“ clips” returns where the caches from position 46 on (2 tokens before this step's, "
            "in the lane's text) are the baseline's. With all of them the baseline's, KL(p‖q) "
            "is 0.200 nats.",
        ),
        (
            "lane",
            in_text(39, {0: next_token(0.2), 39: next_token(0.9), 40: LANE, 47: LANE}, prompt=40),
            "“ clips” returns where the caches from position 39 on (in the prompt, positions 0 to "
            "39) are the baseline's; from position 40 on is not enough. With all of them the "
            "baseline's, KL(p‖q) is 0.200 nats.",
        ),
        (
            "baseline",
            in_text(None, {0: next_token(2.1, STAYS)}, prompt=40),
            "reading the last token is enough to lose “ clips”; even over the baseline's caches, "
            "“ friends” stays, KL(p‖q) 2.10 nats.",
        ),
        (
            "baseline",
            in_text(47, {0: next_token(0.2), 47: next_token(3.4)}, prompt=40),
            "over its own caches the lane prefers “ clips” too: rounding decides.",
        ),
    ],
)
def test_where_in_the_text(tokens: str, where, sentence: str) -> None:
    blame = msgspec.structs.replace(blame_of(LANE, ONE, in_text=where), tokens=tokens)
    assert sentences(blame, 8)[1:] == [f"In the text: {sentence}"]


def test_where_in_the_text_if_the_tokens_are_the_same() -> None:
    where = in_text(40, {0: next_token(0.2), 40: next_token(0.3)}, prompt=40)
    assert sentences(blame_of(next_token(0.34), ONE, in_text=where), 8)[1] == (
        "In the text: KL(p‖q) is 0.340 nats, and 0.200 nats where the lane reads the last token "
        "over the baseline's caches."
    )


def test_where_in_depth() -> None:
    every: list[NextToken | None] = [LANE, next_token(1.7, STAYS), next_token(0.0)]
    last: list[NextToken | None] = [LANE, LANE, next_token(2.0, STAYS)]
    where = WhereInDepth(last=last, every=every)
    first = "In depth, with the baseline's residual stream put in at "
    assert sentences(blame_of(LANE, ONE, in_depth=where), 8)[1:] == [
        f"{first}all positions: KL(p‖q) is at most half of 3.40 nats from after attention 0 on, "
        "and “ clips” returns from after MLP 0 on.",
        f"{first}the last position: KL(p‖q) is above half of 3.40 nats even after the last "
        "sublayer, and “ clips” has not returned after the last sublayer.",
    ]
    assert sentences(blame_of(next_token(3.4), ONE, in_depth=where), 8)[1:] == [
        f"{first}all positions: KL(p‖q) is at most half of 3.40 nats from after attention 0 on.",
        f"{first}the last position: KL(p‖q) is above half of 3.40 nats even after the last "
        "sublayer.",
    ]
    # There is no half of what is not finite.
    assert len(sentences(blame_of(next_token(None), ONE, in_depth=where), 8)) == 1
