"""Smallest terminal that the screens are laid out for."""

from textual.geometry import Size

LEAST_WIDTH, LEAST_HEIGHT = 60, 16


def is_too_small(size: Size) -> bool:
    return size.width < LEAST_WIDTH or size.height < LEAST_HEIGHT


def too_small_notice(size: Size) -> str:
    """Sentence shown in place of the screen."""
    return (
        f"prunetui needs {LEAST_WIDTH} columns and {LEAST_HEIGHT} lines; "
        f"here are {size.width} and {size.height}."
    )
