"""Made-up blames of lanes, for tests that need no model."""

from collections.abc import Sequence

import msgspec
from prunetui.engine.trace.blame import (
    Blame,
    BlamedTokens,
    Causes,
    Cumulative,
    NextToken,
    Part,
    PartBlame,
    PatchedPosition,
    WhereInDepth,
    WhereInText,
)
from prunetui.engine.trace.trace import Trace

TEXTS = {1: " clips", 2: " friends", 3: "\x1b]0;x\x07</td>|`[b]\u202e"}
"""Texts of the tokens: the baseline's, the lane's, and a hostile one."""

OUTSIDE = Part(sublayer="outside")


def attention(layer: int) -> Part:
    return Part(sublayer="attention", layer=layer)


def mlp(layer: int) -> Part:
    return Part(sublayer="mlp", layer=layer)


NOT_NUMBERS = NextToken(kl=None, gap=None, token=0, text="", not_numbers=True)


def next_token(kl: float | None, token: int = 1, gap: float | None = None) -> NextToken:
    return NextToken(kl=kl, gap=gap, token=token, text=TEXTS[token])


def part_blame(part: Part, given_back: NextToken, alone: NextToken) -> PartBlame:
    return PartBlame(part=part, given_back=given_back, alone=alone)


def blame_of(
    pruned: NextToken,
    parts: Sequence[PartBlame],
    cumulative: Sequence[tuple[Part, NextToken]] = (),
    *,
    floor: float | None = 1e-9,
    in_text: WhereInText | None = None,
    in_depth: WhereInDepth | None = None,
) -> Blame:
    return Blame(
        lane=1,
        tokens="baseline",
        baseline=next_token(0.0, gap=1.5),
        pruned=pruned,
        floor=floor,
        parts=[*parts],
        cumulative=Cumulative(
            parts=[part for part, _ in cumulative],
            after=[after for _, after in cumulative],
            forms=len(parts) + len(cumulative),
        ),
        seconds=0.5,
        in_text=in_text,
        in_depth=in_depth,
    )


def in_text(latest: int | None, tried: dict[int, NextToken], prompt: int = 3) -> WhereInText:
    """By default after the prompt of `make_header`."""
    positions = [PatchedPosition(position=at, next=form) for at, form in tried.items()]
    return WhereInText(prompt=prompt, tried=positions, latest=latest)


def make_blame(layers: int = 3) -> Blame:
    """A blame that has every field, of lane 1 at a step from 2 on of a trace by `make_step`.

    Given back, attention 1 returns the baseline's token, MLP 1 makes it worse, and with what is
    outside of the layers pruned alone its logits are not numbers.
    """
    return blame_of(
        next_token(3.5, 2, -2.0),
        [
            part_blame(attention(1), next_token(0.25, 1, 1.0), next_token(3.0, 2, -0.5)),
            part_blame(mlp(1), next_token(4.0, 3, -2.5), next_token(0.5, 1, 1.25)),
            part_blame(OUTSIDE, next_token(3.25, 2, -1.5), NOT_NUMBERS),
        ],
        [(attention(1), next_token(0.25, 1, 1.0))],
        in_text=in_text(
            1,
            {
                0: next_token(0.125, 1, 1.5),
                1: next_token(0.75, 1, 0.25),
                2: next_token(2.0, 2, -1.0),
            },
        ),
        in_depth=WhereInDepth(
            last=[
                *(
                    next_token(3.5 - point / 2, 1 if point > 4 else 2)
                    for point in range(2 * layers)
                ),
                next_token(0.0, 1, 1.5),
            ],
            every=[NOT_NUMBERS, *[next_token(0.5, 1, 0.5)] * (2 * layers)],
        ),
    )


def made_up_blame(trace: Trace, number: int, lane: int, tokens: BlamedTokens) -> Blame:
    """`make_blame` of a lane at a step of a trace."""
    header = trace.header
    prompt = len(header.prompt.tokens)
    tried = {0: next_token(0.125, 1, 1.5)}
    tried |= {prompt + number - 1: next_token(3.5, 2, -2.0)}
    return msgspec.structs.replace(
        make_blame(header.model.layers),
        lane=lane,
        tokens=tokens,
        in_text=in_text(0, tried, prompt),
    )


def add_causes(recorded: Blame | None, found: Blame, what: Causes) -> Blame:
    """What a session makes of a recorded blame, if there is one, that is asked for more."""
    blame = msgspec.structs.replace(found, in_text=None, in_depth=None)
    if recorded is not None and what != "parts":
        blame = recorded
    return msgspec.structs.replace(
        blame,
        in_text=found.in_text if what == "text" else blame.in_text,
        in_depth=found.in_depth if what == "depth" else blame.in_depth,
    )
