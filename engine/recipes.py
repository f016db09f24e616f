"""The recipe language: what a person types for a variant.

    recipe  = part {"+" part}
    part    = "drop:" ("attn" | "mlp") "=" (number | "[" number {"," number} "]")

A number drops that many of the sublayers that matter least, a list just those layers'.
"""

import re
from dataclasses import dataclass
from typing import Literal

from .errors import UserError

Kind = Literal["attn", "mlp"]

SUBLAYER = {"attn": "attention", "mlp": "MLP"}


@dataclass(frozen=True)
class Drop:
    """Drop `count` sublayers of a kind, or those of the given layers."""

    kind: Kind
    count: int = 0
    layers: tuple[int, ...] = ()

    def __str__(self) -> str:
        what = f"[{','.join(map(str, self.layers))}]" if self.layers else str(self.count)
        return f"drop:{self.kind}={what}"


@dataclass(frozen=True)
class Recipe:
    """Parts apply left to right. `str` of it parses to it again."""

    parts: tuple[Drop, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.parts))


# What may stand at each place, in order, and how to say so.
_GRAMMAR = (
    (r"drop:", "drop:"),
    (r"(?P<kind>attn|mlp)", "attn or mlp"),
    (r"=", "="),
    (r"(?P<count>[0-9]+)|\[\s*(?P<layers>[0-9]+(\s*,\s*[0-9]+)*)\s*\]", "4 or [3,7]"),
)


def parse(text: str) -> Recipe:
    """Raises `UserError`, which shows the place, if `text` is no recipe."""
    parts = []
    at = 0
    while True:
        found: dict[str, str] = {}
        for pattern, expected in _GRAMMAR:
            match = re.compile(pattern).match(text, at)
            if match is None:
                raise _unexpected(text, at, expected)
            found |= {key: value for key, value in match.groupdict().items() if value}
            at = match.end()
        parts.append(_drop(text, found))
        if at == len(text):
            return Recipe(tuple(parts))
        if text[at] != "+":
            raise _unexpected(text, at, "+ or the end")
        at += 1


def _drop(text: str, found: dict[str, str]) -> Drop:
    kind: Kind = "attn" if found["kind"] == "attn" else "mlp"
    if "count" in found:
        count = int(found["count"])
        if count == 0:
            raise UserError(f"recipe {text!r} drops nothing; ask for 1 or more")
        return Drop(kind, count=count)
    return Drop(kind, layers=tuple(sorted({int(n) for n in found["layers"].split(",")})))


def _unexpected(text: str, at: int, expected: str) -> UserError:
    shown = f"{text[:at]}▸{text[at:]}"
    return UserError(
        f"recipe {shown!r} does not parse at ▸ (character {at + 1}): expected {expected}; "
        "examples: drop:attn=4, drop:mlp=[25,26], drop:attn=4+drop:mlp=2"
    )
