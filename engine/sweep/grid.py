"""Grids of recipes in one line: `drop:attn={0..12}`, `wanda:{0.3,0.5}`, `drop:mlp={0..12..4}`.

    grid  = text of a recipe in which braces stand for values
    brace = "{" from ".." to [".." step] "}" | "{" text {"," text} "}"

Several braces multiply, the last one varying fastest. Quoted paths keep their braces.
"""

import itertools
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import NoReturn

from ..errors import OptionError
from ..files import exists, expanded
from ..variants.recipes import Recipe, parse

MOST_RECIPES = 4096
"""Recipes of a grid at most."""

_TOKEN = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|\{[^{}]*\}|.""", re.DOTALL)
_NUMBER = r"([0-9]{0,6}\.?[0-9]{1,6})"
_RANGE = re.compile(rf"{_NUMBER}\.\.{_NUMBER}(?:\.\.{_NUMBER})?")


def grid_recipes(grids: Iterable[str]) -> list[Recipe]:
    """Recipes of the grids, each once, in order; one that drops nothing is a control.

    Raises `OptionError` for a grid or a recipe that does not parse, showing where.
    """
    recipes: dict[str, Recipe] = {}
    for grid in grids:
        made = [parse(text, zero=True) for text in expand(grid)]
        if made[0].given_name and len(made) > 1:
            raise OptionError(
                f"grid {grid!r} gives {len(made)} recipes the one name {made[0].given_name}; "
                "leave the name out"
            )
        for recipe in made:
            recipes.setdefault(recipe.text, recipe)
    return [*recipes.values()]


def expand(grid: str) -> list[str]:
    """Texts that the braces of a grid stand for. Raises `OptionError`, showing where."""
    if exists(expanded(grid)):
        return [grid]
    columns: list[list[str]] = []
    count = 1
    for token in _TOKEN.finditer(grid):
        text = token.group()
        if text in ("{", "}"):
            _fail(grid, token.start(), f"the brace {text} has no other one")
        column = _values(grid, token.start() + 1, text[1:-1]) if text[0] == "{" else [text]
        count *= len(column)
        if count > MOST_RECIPES:
            raise OptionError(_too_many(grid, f"{count} recipes or more"))
        columns.append(column)
    return ["".join(texts) for texts in itertools.product(*columns)]


def _values(grid: str, at: int, text: str) -> list[str]:
    """Values of the brace whose text begins at a character of the grid."""
    if numbers := _RANGE.fullmatch(text):
        if "." in numbers[1] + numbers[2] and numbers[3] is None:
            _fail(grid, at, "a range of fractions needs a step, as in {0.1..0.5..0.1}")
        return _range(grid, at, *(Decimal(number) for number in numbers.groups("1")))
    if ".." in text and "," not in text:
        _fail(grid, at, "expected two numbers and perhaps a step")
    values = text.split(",")
    for value in values:
        if not value:
            _fail(grid, at, "expected a value")
        at += len(value) + 1
    return values


def _range(grid: str, at: int, first: Decimal, last: Decimal, step: Decimal) -> list[str]:
    if step == 0:
        _fail(grid, at, "a step of 0 never ends")
    count = math.floor(abs(last - first) / step) + 1
    if count > MOST_RECIPES:
        raise OptionError(_too_many(grid, f"{count} values"))
    sign = 1 if first <= last else -1
    return [f"{first + sign * step * number:f}" for number in range(count)]


def _too_many(grid: str, count: str) -> str:
    return f"grid {grid!r} has {count}, and a sweep at most {MOST_RECIPES}; ask for fewer"


def _fail(grid: str, at: int, reason: str) -> NoReturn:
    shown = f"{grid[:at]}▸{grid[at:]}"
    raise OptionError(
        f"grid {shown!r} does not parse at ▸ (character {at + 1}): {reason}; examples: "
        "drop:attn={0..12}, drop:mlp={0..12..4}, wanda:{0.3,0.5,0.7}"
    )
