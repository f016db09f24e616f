"""The recipe language, in which a variant is typed.

    recipe   = [name "="] ("control" | part {"+" part})
    part     = drop | sparsify | restore | checkpoint
    drop     = "drop:" ("attn" | "mlp" | "joint" | "block") "=" (number | list) {"," option}
    list     = "[" number {"," number} "]"
    option   = "iterative" | "consecutive" | "by=kl" [":" text]
    sparsify = ("magnitude" | "wanda" | "sparsegpt") ":" (fraction | number ":" number)
    restore  = "restore:" (("attn" | "mlp" | "block") "=" list | "outside")
    checkpoint = a directory, a GGUF file or a Hugging Face id, only as the first part; as it is, in
                 '…', or as a JSON string in "…"

    text     = a text or JSONL file, quoted as a checkpoint is if it has a + or , in it

Parts apply left to right. A path with + or : in it goes without quotes if it exists and the text
cannot be read in another way too.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NoReturn

from ..errors import OptionError, UserError
from ..model.dropped import SUBLAYERS, Dropped, Sublayer
from ..trace import blame
from .recipe_paths import (
    NAME,
    QUOTATION,
    existing_paths,
    is_plain,
    names_a_checkpoint,
    quoted,
    unquoted,
)

Kind = Literal["attn", "mlp", "joint", "block"]
Method = Literal["magnitude", "wanda", "sparsegpt"]
RestoredKind = Literal["attn", "mlp", "block", "outside"]

EXAMPLES = "drop:attn=4, drop:mlp=[25,26], wanda:0.5, sparsegpt:2:4, drop:attn=4+drop:mlp=2"

QUOTED = """as in "'./a+b'+drop:attn=4\""""
"""Quoting of a path; the outer quotes are the shell's."""


_SUBLAYERS_OF: dict[str, tuple[Sublayer, ...]] = {
    "attn": ("attention",),
    "mlp": ("mlp",),
    "joint": SUBLAYERS,
    "block": SUBLAYERS,
    "outside": (),
}


@dataclass(frozen=True)
class Drop:
    """Part that drops the `count` least important sublayers, or those of the given layers.

    `joint` ranks attention and MLP sublayers in one list; `block` drops whole layers,
    `consecutive` a run of them. `iterative` measures importance again after each drop.
    """

    kind: Kind
    count: int = 0
    layers: tuple[int, ...] = ()
    iterative: bool = False
    consecutive: bool = False
    by: Literal["similarity", "kl"] = "similarity"
    """Measure of importance: cosine similarity of the residual stream, or KL(p ‖ q)."""
    text: str = ""
    """File of the text on which KL is measured; "" for the calibration text."""

    def __str__(self) -> str:
        target = f"[{','.join(map(str, self.layers))}]" if self.layers else str(self.count)
        plain = "," not in self.text and is_plain(self.text)
        text = f":{self.text if plain else quoted(self.text)}" if self.text else ""
        by = f",by=kl{text}" if self.by == "kl" else ""
        options = ",iterative" * self.iterative + ",consecutive" * self.consecutive
        return f"drop:{self.kind}={target}{by}{options}"

    @property
    def sublayers(self) -> tuple[Sublayer, ...]:
        """Kinds of sublayers that it drops."""
        return _SUBLAYERS_OF[self.kind]

    @property
    def listed(self) -> Dropped:
        """Sublayers of the layers that it lists."""
        return Dropped(**dict.fromkeys(self.sublayers, frozenset(self.layers)))


@dataclass(frozen=True)
class Pattern:
    """N:M sparsity: N of every M consecutive inputs are zero."""

    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class Sparsify:
    """Part that zeroes a fraction of each matrix's weights, or N of every M."""

    method: Method
    sparsity: float | Pattern

    def __str__(self) -> str:
        if isinstance(self.sparsity, Pattern):
            return f"{self.method}:{self.sparsity}"
        # Never 1e-05, which the language has no number for.
        return f"{self.method}:{Decimal(str(self.sparsity)):f}"


@dataclass(frozen=True)
class Restore:
    """Part after which sublayers, with the norms before and after them, are as in the baseline:
    its weights, and not dropped. `outside` is all that is in no layer."""

    kind: RestoredKind
    layers: tuple[int, ...] = ()

    def __str__(self) -> str:
        layers = f"=[{','.join(map(str, self.layers))}]" if self.layers else ""
        return f"restore:{self.kind}{layers}"

    @property
    def listed(self) -> Dropped:
        """Sublayers that it lists, as those that are dropped no longer."""
        return Dropped(**dict.fromkeys(_SUBLAYERS_OF[self.kind], frozenset(self.layers)))

    @property
    def parts(self) -> frozenset[blame.Part]:
        if self.kind == "outside":
            return frozenset({blame.Part(sublayer="outside")})
        return frozenset(
            blame.Part(sublayer=sublayer, layer=layer)
            for sublayer in _SUBLAYERS_OF[self.kind]
            for layer in self.layers
        )


@dataclass(frozen=True)
class Checkpoint:
    """Part that loads weights pruned elsewhere."""

    source: str

    def __str__(self) -> str:
        plain = (
            names_a_checkpoint(self.source)
            and self.source != "control"
            and NAME.match(self.source) is None
            and is_plain(self.source)
        )
        return self.source if plain else quoted(self.source)


Part = Drop | Sparsify | Restore | Checkpoint


@dataclass(frozen=True)
class Recipe:
    """Parts of a variant; none make a control. `str` of a recipe parses to it again."""

    parts: tuple[Part, ...]
    given_name: str = ""

    @property
    def text(self) -> str:
        """Recipe without its name."""
        return self._written("")

    @property
    def name(self) -> str:
        return self.given_name or self.text

    def __str__(self) -> str:
        return self._written(f"{self.given_name}=" if self.given_name else "")

    def _written(self, begin: str) -> str:
        text = begin + ("+".join(map(str, self.parts)) or "control")
        match self.parts:
            case [Checkpoint() as checkpoint, *others]:
                span = len(begin), len(begin) + len(checkpoint.source)
                if any(path != span for path in existing_paths(text)):
                    return begin + "+".join([quoted(checkpoint.source), *map(str, others)])
        return text


def parse(text: str, *, zero: bool = False) -> Recipe:
    """Parse a recipe. Raises `UserError` if it is none, showing where, or could be two.

    A part that drops or zeroes 0 is refused, or left out with `zero`.
    """
    paths = existing_paths(text)
    readings = [reading for path in paths if (reading := _with_path(text, zero, *path))]
    parser = _Parser(text, zero)
    try:
        plain = parser.recipe()
    except UserError:
        if not readings:
            raise
    else:
        # Paths with + or : are tried only where the language has no other reading.
        if parser.quoted or not any(isinstance(part, Checkpoint) for part in plain.parts):
            return plain
        readings = readings or [plain]
    if len(readings) > 1:
        paths = " and ".join(str(reading.parts[0]) for reading in readings)
        raise OptionError(
            f"recipe {text!r} can be read in more than one way, as {paths} exist; put the path "
            f"that is meant in quotes of its own, {QUOTED}"
        )
    return readings[0]


def _with_path(text: str, zero: bool, start: int, end: int) -> Recipe | None:
    """Recipe with the span as its checkpoint; None if the rest does not parse."""
    parser = _Parser(text, zero)
    parser.at = end
    try:
        return parser.rest(Checkpoint(text[start:end]), text[:start].removesuffix("="))
    except UserError:
        return None


_LAYER = r"\s*[0-9]{1,6}\s*"
_LIST = rf"\[{_LAYER}(,{_LAYER})*\]"


def _layers(text: str) -> tuple[int, ...]:
    """Layers of a list, ascending, each once."""
    return tuple(sorted({int(number) for number in text[1:-1].split(",")}))


class _Parser:
    def __init__(self, text: str, zero: bool) -> None:
        self.text = text
        self.zero = zero
        self.at = 0
        self.quoted = False
        """Whether a checkpoint is in quotes, so that the text has no other reading."""

    def take(self, pattern: str) -> str | None:
        """Match at the position, and move past it."""
        match = re.compile(pattern).match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match.group()

    def expect(self, pattern: str, description: str) -> str:
        match = self.take(pattern)
        return self.fail(description) if match is None else match

    def fail(self, expected: str) -> NoReturn:
        shown = f"{self.text[: self.at]}▸{self.text[self.at :]}"
        raise OptionError(
            f"recipe {shown!r} does not parse at ▸ (character {self.at + 1}): expected "
            f"{expected}; examples: {EXAMPLES}; a path with + : or = in it goes in quotes of its "
            f"own, {QUOTED}"
        )

    def refuse(self, reason: str) -> NoReturn:
        raise OptionError(f"recipe {self.text!r} {reason}")

    def recipe(self) -> Recipe:
        name = (self.take(NAME.pattern) or "").removesuffix("=")
        if self.take(r"control$"):
            return Recipe((), name)
        return self.rest(self.part(first=True), name)

    def rest(self, first: Part, name: str) -> Recipe:
        parts = [first]
        while self.take(r"\+"):
            parts.append(self.part(first=False))
        if self.at < len(self.text):
            self.fail("+ or the end")
        return Recipe(tuple(part for part in parts if not _does_nothing(part)), name)

    def part(self, *, first: bool) -> Part:
        if self.take("drop:"):
            return self.drop()
        if method := self.take("(magnitude|wanda|sparsegpt):"):
            return Sparsify(method.removesuffix(":"), self.sparsity())  # type: ignore[arg-type]
        if first and (quotation := self.take(QUOTATION)):
            self.quoted = True
            return Checkpoint(self.unquoted(quotation))
        if self.take("restore:"):
            return self.restore()
        source = re.compile(r"[^+]*").match(self.text, self.at)
        if first and source and names_a_checkpoint(source.group()):
            self.at = source.end()
            return Checkpoint(source.group())
        return self.fail(
            "drop:, restore:, magnitude:, wanda:, sparsegpt:" + ", control or a checkpoint" * first
        )

    def unquoted(self, quotation: str) -> str:
        try:
            return unquoted(quotation)
        except ValueError:
            self.at -= len(quotation)
            return self.fail("a JSON string in the quotes")

    def drop(self) -> Drop:
        kind: Kind = self.expect("attn|mlp|joint|block", "attn, mlp, joint or block")  # type: ignore[assignment]
        self.expect("=", "=")
        target = self.expect(rf"[0-9]{{1,6}}|{_LIST}", "4 or [3,7]")
        if target.startswith("["):
            if kind == "joint":
                self.refuse("lists layers for joint, which cannot say of what; use attn and mlp")
            return Drop(kind, layers=_layers(target))
        if int(target) == 0 and not self.zero:
            self.refuse("drops nothing; ask for 1 or more")
        options: dict[str, str] = {}
        while self.take(","):
            option = self.expect("iterative|consecutive|by=kl", "iterative, consecutive or by=kl")
            options[option] = ""
            if option == "by=kl" and self.take(":"):
                path = self.expect(rf"{QUOTATION}|[^+,'\"\s][^+,]*", "a text file")
                options[option] = self.unquoted(path) if path[0] in "'\"" else path
        if "consecutive" in options and kind != "block":
            self.refuse(f"asks for a run of {kind}; consecutive goes with drop:block")
        if {"iterative", "consecutive"} <= options.keys():
            self.refuse("asks for a run one by one; choose iterative or consecutive")
        return Drop(
            kind,
            count=int(target),
            iterative="iterative" in options,
            consecutive="consecutive" in options,
            by="kl" if "by=kl" in options else "similarity",
            text=options.get("by=kl", ""),
        )

    def restore(self) -> Restore:
        kind: RestoredKind = self.expect("attn|mlp|block|outside", "attn, mlp, block or outside")  # type: ignore[assignment]
        if kind == "outside":
            return Restore(kind)
        self.expect("=", "=")
        return Restore(kind, _layers(self.expect(_LIST, "[3,7]")))

    def sparsity(self) -> float | Pattern:
        text = self.expect(r"([0-9]+:[0-9]+|[0-9]*\.?[0-9]+)(?=\+|$)", "0.5 or 2:4")
        if ":" in text:
            pattern = Pattern(*map(int, text.split(":")))
            if not 0 < pattern.n < pattern.m:
                self.refuse(f"zeroes {pattern.n} of {pattern.m}; N:M needs 0 < N < M")
            return pattern
        if not (0 < float(text) < 1 or (self.zero and float(text) == 0)):
            self.refuse(f"has a sparsity of {text}, which is not between 0 and 1")
        return float(text)


def _does_nothing(part: Part) -> bool:
    if isinstance(part, Drop):
        return part.count == 0 and not part.layers
    return isinstance(part, Sparsify) and part.sparsity == 0
