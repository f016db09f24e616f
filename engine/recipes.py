"""The recipe language: what a person types for a variant.

    recipe   = [name "="] ("control" | part {"+" part})
    part     = drop | sparsify | checkpoint
    drop     = "drop:" ("attn" | "mlp" | "joint" | "block") "=" (number | list) {"," option}
    list     = "[" number {"," number} "]"
    option   = "iterative" | "consecutive"
    sparsify = ("magnitude" | "wanda" | "sparsegpt") ":" (fraction | number ":" number)
    checkpoint = a directory, a GGUF file or a Hugging Face id, only as the first part

Parts apply left to right.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NoReturn

from .errors import UserError
from .paths import exists, expanded

Kind = Literal["attn", "mlp", "joint", "block"]
Method = Literal["magnitude", "wanda", "sparsegpt"]

EXAMPLES = "drop:attn=4, drop:mlp=[25,26], wanda:0.5, sparsegpt:2:4, drop:attn=4+drop:mlp=2"


@dataclass(frozen=True)
class Drop:
    """Drop `count` of what matters least, or what is at the given layers.

    `joint` ranks attention and MLP sublayers in one list; `block` drops whole layers,
    `consecutive` a run of them. `iterative` measures again after each one dropped.
    """

    kind: Kind
    count: int = 0
    layers: tuple[int, ...] = ()
    iterative: bool = False
    consecutive: bool = False

    def __str__(self) -> str:
        what = f"[{','.join(map(str, self.layers))}]" if self.layers else str(self.count)
        options = ",iterative" * self.iterative + ",consecutive" * self.consecutive
        return f"drop:{self.kind}={what}{options}"


@dataclass(frozen=True)
class Pattern:
    """N of every M consecutive inputs are zero."""

    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class Sparsify:
    """Zero a fraction of each matrix's weights, or N of every M."""

    method: Method
    sparsity: float | Pattern

    def __str__(self) -> str:
        if isinstance(self.sparsity, Pattern):
            return f"{self.method}:{self.sparsity}"
        # Never 1e-05, which the language does not have.
        return f"{self.method}:{Decimal(str(self.sparsity)):f}"


@dataclass(frozen=True)
class Checkpoint:
    """Weights that were pruned elsewhere."""

    source: str

    def __str__(self) -> str:
        return self.source


Part = Drop | Sparsify | Checkpoint


@dataclass(frozen=True)
class Recipe:
    """No parts make a second baseline: a control. `str` of a recipe parses to it again."""

    parts: tuple[Part, ...]
    given_name: str = ""

    @property
    def text(self) -> str:
        """Without the name."""
        return "+".join(map(str, self.parts)) or "control"

    @property
    def name(self) -> str:
        return self.given_name or self.text

    def __str__(self) -> str:
        return f"{self.given_name}={self.text}" if self.given_name else self.text


def with_drops(recipe: Recipe, attention: Iterable[int], mlp: Iterable[int]) -> Recipe:
    """The recipe with these layers dropped and no others: lists in the place of its first drop."""
    closed: list[tuple[Kind, set[int]]] = [("attn", set(attention)), ("mlp", set(mlp))]
    lists = [Drop(kind, layers=tuple(sorted(layers))) for kind, layers in closed if layers]
    is_drop = [isinstance(part, Drop) for part in recipe.parts]
    place = is_drop.index(True) if any(is_drop) else len(recipe.parts)
    kept = [part for part in recipe.parts[place:] if not isinstance(part, Drop)]
    return Recipe((*recipe.parts[:place], *lists, *kept), recipe.given_name)


def parse(text: str) -> Recipe:
    """Raises `UserError`, which shows the place, if `text` is no recipe."""
    return _Parser(text).recipe()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def take(self, pattern: str) -> str | None:
        """What matches at this place, which is then behind us."""
        match = re.compile(pattern).match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match.group()

    def expect(self, pattern: str, said: str) -> str:
        found = self.take(pattern)
        return self.fail(said) if found is None else found

    def fail(self, expected: str) -> NoReturn:
        shown = f"{self.text[: self.at]}▸{self.text[self.at :]}"
        raise UserError(
            f"recipe {shown!r} does not parse at ▸ (character {self.at + 1}): expected "
            f"{expected}; examples: {EXAMPLES}"
        )

    def refuse(self, why: str) -> NoReturn:
        raise UserError(f"recipe {self.text!r} {why}")

    def recipe(self) -> Recipe:
        name = (self.take(r"[A-Za-z0-9][\w.-]*=") or "").removesuffix("=")
        if self.take(r"control$"):
            return Recipe((), name)
        parts = [self.part(first=True)]
        while self.take(r"\+"):
            parts.append(self.part(first=False))
        if self.at < len(self.text):
            self.fail("+ or the end")
        return Recipe(tuple(parts), name)

    def part(self, *, first: bool) -> Part:
        if self.take("drop:"):
            return self.drop()
        if method := self.take("(magnitude|wanda|sparsegpt):"):
            return Sparsify(method.removesuffix(":"), self.sparsity())  # type: ignore[arg-type]
        source = re.compile(r"[^+]*").match(self.text, self.at)
        if first and source and _names_a_checkpoint(source.group()):
            self.at = source.end()
            return Checkpoint(source.group())
        return self.fail(
            "drop:, magnitude:, wanda:, sparsegpt:" + ", control or a checkpoint" * first
        )

    def drop(self) -> Drop:
        kind: Kind = self.expect("attn|mlp|joint|block", "attn, mlp, joint or block")  # type: ignore[assignment]
        self.expect("=", "=")
        number = r"\s*[0-9]{1,6}\s*"
        found = self.expect(rf"[0-9]{{1,6}}|\[{number}(,{number})*\]", "4 or [3,7]")
        if found.startswith("["):
            if kind == "joint":
                self.refuse("lists layers for joint, which cannot say of what; use attn and mlp")
            return Drop(kind, layers=tuple(sorted({int(n) for n in found[1:-1].split(",")})))
        if int(found) == 0:
            self.refuse("drops nothing; ask for 1 or more")
        options = set()
        while self.take(","):
            options.add(self.expect("iterative|consecutive", "iterative or consecutive"))
        if "consecutive" in options and kind != "block":
            self.refuse(f"asks for a run of {kind}; consecutive goes with drop:block")
        if options == {"iterative", "consecutive"}:
            self.refuse("asks for a run one by one; choose iterative or consecutive")
        return Drop(
            kind,
            count=int(found),
            iterative="iterative" in options,
            consecutive="consecutive" in options,
        )

    def sparsity(self) -> float | Pattern:
        found = self.expect(r"([0-9]+:[0-9]+|[0-9]*\.?[0-9]+)(?=\+|$)", "0.5 or 2:4")
        if ":" in found:
            pattern = Pattern(*map(int, found.split(":")))
            if not 0 < pattern.n < pattern.m:
                self.refuse(f"zeroes {pattern.n} of {pattern.m}; N:M needs 0 < N < M")
            return pattern
        if not 0 < float(found) < 1:
            self.refuse(f"has a sparsity of {found}, which is not between 0 and 1")
        return float(found)


def _names_a_checkpoint(text: str) -> bool:
    """A path, or `owner/name`; a bare word only if it stands for something on the disk."""
    named = "/" in text or text.startswith("~") or exists(expanded(text))
    return ":" not in text and bool(text) and named
