"""Checks of the options that need no torch, and so no wait."""

from collections.abc import Collection

from ..errors import OptionError
from ..model.source import check_model_options, find_source
from ..options import Options
from ..trace.records import MAX_LANES
from .calibration_text import file_source, read_calibration_text
from .recipes import Checkpoint, Drop, Recipe, parse


def check_options(options: Options) -> None:
    """Raise `UserError` for what can be refused before any model is loaded."""
    recipes = [parse(text) for text in options.variants or ()]
    check_lane_count(recipes)
    check_model_options(options)
    for recipe in recipes:
        for part in recipe.parts:
            if isinstance(part, Checkpoint):
                find_source(part.source)
            elif isinstance(part, Drop) and part.text:
                read_calibration_text(file_source(part.text))
    read_calibration_text(options.calibration)


def check_lane_count(recipes: Collection[Recipe]) -> None:
    """Raise `UserError` for more lanes than a trace can have."""
    if len(recipes) >= MAX_LANES:
        raise OptionError(
            f"{len(recipes)} variants and the baseline are too many lanes; a session has at "
            f"most {MAX_LANES}"
        )
