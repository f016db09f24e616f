"""Recipes made of others: with other sublayers dropped, or with a part as in the baseline again."""

from typing import Literal

from ..model.dropped import SUBLAYERS, Dropped, Sublayer
from ..trace import blame
from .recipes import Checkpoint, Drop, Part, Recipe, Restore, Sparsify

_KINDS: dict[Sublayer, Literal["attn", "mlp"]] = {"attention": "attn", "mlp": "mlp"}


def with_drops(recipe: Recipe, dropped: Dropped) -> Recipe:
    """The recipe with exactly these sublayers dropped: lists at the index of its first drop.

    What it gives back after that has the baseline's weights still, where it had others.
    """
    lists = [
        Drop(kind, layers=tuple(layers))
        for kind, layers in zip(_KINDS.values(), dropped.lists, strict=True)
        if layers
    ]
    is_drop = [isinstance(part, Drop) for part in recipe.parts]
    first = is_drop.index(True) if any(is_drop) else len(recipe.parts)
    parts: list[Part] = [*recipe.parts[:first], *lists]
    for part in recipe.parts[first:]:
        if isinstance(part, Restore):
            if any(isinstance(earlier, Sparsify | Checkpoint) for earlier in parts):
                parts += _without(part, dropped)
        elif not isinstance(part, Drop):
            parts.append(part)
    return Recipe(tuple(parts), recipe.given_name)


def _without(part: Restore, dropped: Dropped) -> list[Restore]:
    """The part without sublayers that are to stay dropped."""
    left = part.listed - dropped
    if left == part.listed:
        return [part]
    return [
        Restore(_KINDS[sublayer], tuple(sorted(left.of(sublayer))))
        for sublayer in SUBLAYERS
        if left.of(sublayer)
    ]


def with_restored(recipe: Recipe, part: blame.Part) -> Recipe:
    """The recipe, without its name, with this part as in the baseline after all others."""
    end = len(recipe.parts)
    while end and isinstance(recipe.parts[end - 1], Restore):
        end -= 1
    restores = [each for each in recipe.parts[end:] if isinstance(each, Restore)]
    if any(part in each.parts for each in restores):
        return Recipe(recipe.parts)
    added = Restore("outside")
    if part.sublayer != "outside" and part.layer is not None:
        kind = _KINDS[part.sublayer]
        alike = [each for each in restores if each.kind == kind]
        layers = {part.layer, *(layer for each in alike for layer in each.layers)}
        restores = [each for each in restores if each.kind != kind]
        added = Restore(kind, tuple(sorted(layers)))
    return Recipe((*recipe.parts[:end], *restores, added))
