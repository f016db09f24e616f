"""Families of recipes that differ in one number, which is what a sweep sweeps over."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..errors import UserError
from ..results.results import Results
from ..variants.recipes import Drop, Part, Recipe, Sparsify, parse
from .jobs import needs_calibration

DROPPED = {
    "attn": "attention sublayers dropped",
    "mlp": "MLP sublayers dropped",
    "joint": "sublayers dropped",
    "block": "layers dropped",
}
ZEROED = "share of weights zeroed"


@dataclass(frozen=True)
class Place:
    """Where a recipe stands in its family."""

    family: str
    """Recipe without the number, such as `drop:attn` or `drop:attn+wanda:0.5`."""
    number: float
    axis: str
    """What the number counts."""
    zero: str
    """Recipe of the family's number 0; "" for the baseline."""


def find_places(recipes: Iterable[str]) -> dict[str, Place]:
    """Places by recipe; recipes without a number, such as lists of layers, have none.

    Of several numbers, the one that takes the most values among the recipes is the family's, and
    the others tell families apart.
    """
    alike: dict[tuple[str, ...], dict[str, Recipe]] = {}
    for text in recipes:
        recipe = _parsed(text)
        if recipe and any(_number(part) is not None for part in recipe.parts):
            blanks = tuple(_without_number(part) for part in recipe.parts)
            alike.setdefault(blanks, {})[text] = recipe
    places: dict[str, Place] = {}
    for members in alike.values():
        columns = zip(*(map(_number, recipe.parts) for recipe in members.values()), strict=True)
        values = [len({*column} - {None}) for column in columns]
        slot = values.index(max(values))
        places |= {text: _place(recipe, slot) for text, recipe in members.items()}
    return places


def lane_recipes(evaluations: Iterable[Results]) -> list[str]:
    """Recipes of all lanes, each once."""
    lanes = [lane for results in evaluations for lane in results.header.lanes]
    return [*dict.fromkeys(lane.recipe for lane in lanes if lane.recipe is not None)]


def calibration_seed(results: Results, lane: int) -> int | None:
    """Seed on which a lane depends; None if it looks at no calibration text."""
    text = results.header.lanes[lane].recipe
    recipe = Recipe(()) if text is None else _parsed(text)
    if recipe is not None and not needs_calibration(recipe):
        return None
    return results.header.options.calibration_seed


def _parsed(text: str) -> Recipe | None:
    try:
        return parse(text)
    except UserError:
        # A checkpoint that is no longer there.
        return None


def _place(recipe: Recipe, slot: int) -> Place:
    part = recipe.parts[slot]
    number = _number(part)
    assert number is not None
    texts = [*map(str, recipe.parts)]
    family = "+".join([*texts[:slot], _without_number(part), *texts[slot + 1 :]])
    zero = "+".join([*texts[:slot], *texts[slot + 1 :]])
    return Place(family, number, DROPPED[part.kind] if isinstance(part, Drop) else ZEROED, zero)


def _number(part: Part) -> float | None:
    """How many sublayers or which share of weights a part names; None for lists and patterns."""
    if isinstance(part, Drop):
        return None if part.layers else part.count
    if isinstance(part, Sparsify) and isinstance(part.sparsity, float):
        return part.sparsity
    return None


def _without_number(part: Part) -> str:
    if _number(part) is None:
        return str(part)
    if isinstance(part, Drop):
        return str(replace(part, count=0)).replace("=0", "", 1)
    return str(part).partition(":")[0]
