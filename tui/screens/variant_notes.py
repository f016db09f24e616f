"""The words of the variant editor: its sentences, and what a variant changes."""

from ...engine.model.dropped import Dropped
from ...engine.trace.figures import share
from ...engine.trace.records import Lane
from ...engine.variants.recipes import Pattern, Recipe, Sparsify, parse

HINT = "A number, then a, m, j or b, closes that many of the least important."
NOT_YET = "What matters least is not measured yet."
NOT_MEASURED = "What matters least is not measured: leave and come back to measure."
BASELINE = "The baseline is the model as it is; n adds a variant."


def changes_of(recipe: Recipe, dropped: Dropped, applied: Lane | None) -> str:
    """Clause on what a variant changes: `4 attn, 2 MLP closed, 50% of weights zero`."""
    counts = {"attn": len(dropped.attention), "MLP": len(dropped.mlp)}
    closed = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    changes = [f"{closed} closed"] if closed else []
    if applied is not None and applied.sparsity is not None:
        pattern = f" ({applied.pattern})" if applied.pattern else ""
        changes.append(f"{share(applied.sparsity)} of weights zero{pattern}")
    else:
        asked = [part.sparsity for part in recipe.parts if isinstance(part, Sparsify)]
        changes += [
            f"{zeros if isinstance(zeros, Pattern) else f'{100 * zeros:.4g}%'} of weights zero"
            for zeros in asked
        ]
    return ", ".join(changes) or "nothing changed"


def note_of(recipe: Recipe, dropped: Dropped | None, applied: Lane | None, *, edited: bool) -> str:
    """What a variant changes, and whether that is an edit; `dropped` is None if only building it
    can tell."""
    if dropped is None:
        return "known when applied"
    changes = changes_of(recipe, dropped, applied)
    return f"edited: {changes}" if edited else changes


def recipe_of(lane: Lane) -> Recipe:
    """Recipe of a lane as it was typed, with its given name."""
    named = lane.name != lane.recipe
    return parse(f"{lane.name}={lane.recipe}" if named else str(lane.recipe))
