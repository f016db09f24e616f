"""Text of figures: one form for each, on every screen and in every report."""


def share(value: float) -> str:
    """Share of a whole, in percent: `84.6%`."""
    return f"{value:.1%}"
