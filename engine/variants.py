"""From a recipe to the gates of a lane."""

from collections.abc import Callable

from .errors import UserError
from .lockstep import LaneGates
from .pruning.importance import Similarity, least_important
from .recipes import SUBLAYER, Recipe


def drop_gates(recipe: Recipe, depth: int, similarity: Callable[[], Similarity]) -> LaneGates:
    """Apply the parts left to right; a count takes from the sublayers that are still there.

    `depth` is the model's number of layers. `similarity` is asked only if a part has a count.
    Raises `UserError` if a part drops what is not there.
    """
    dropped: dict[str, set[int]] = {"attn": set(), "mlp": set()}
    for part in recipe.parts:
        gone = dropped[part.kind]
        name = SUBLAYER[part.kind]
        if part.layers:
            if part.layers[-1] >= depth:
                raise UserError(
                    f"recipe {recipe}: {part} names layer {part.layers[-1]}, but the model's "
                    f"{depth} layers are 0 to {depth - 1}"
                )
            gone |= set(part.layers)
        elif len(gone) + part.count > depth:
            raise UserError(
                f"recipe {recipe}: {part} drops {part.count} {name} sublayers, but there are "
                f"{depth - len(gone)} to drop"
            )
        else:
            gone |= set(least_important(similarity()[part.kind], part.count, gone))
    return LaneGates(frozenset(dropped["attn"]), frozenset(dropped["mlp"]))


def needs_ranking(recipe: Recipe) -> bool:
    return any(part.count for part in recipe.parts)
