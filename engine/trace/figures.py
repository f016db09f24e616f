"""Text of figures: one form for each, on every screen and in every report."""

import math

MISSING = "n/a"
"""Text of a number that was not measured or is not finite."""

ROUNDING = 1e-12
"""Distance and divergence below which there is none, as float64 rounds."""


def cosine(value: float | None) -> str:
    """Cosine similarity: `0.9412`; as near 1 as four decimals cannot tell, `1−3.1e-6`."""
    if value is None:
        return MISSING
    if abs(1 - value) < ROUNDING:
        return "1"
    return f"1−{_scientific(1 - value)}" if 0 < 1 - value < 0.00005 else f"{value:.4f}"


def distance(value: float | None) -> str:
    """1 − cos, an estimate of it or a part of a vector: `0.0588`, `3.1e-6`, `-0.1200`, `0`."""
    if value is None:
        return MISSING
    if abs(value) < ROUNDING:
        return "0"
    return f"{value:.4f}" if 0.001 <= abs(value) < 9.99995 else _scientific(value)


def kl(value: float | None) -> str:
    """KL divergence without its unit, in three digits: `9.83`, `0.0812`, `1.2e-4`, `0`."""
    if value is None:
        return MISSING
    if abs(value) < ROUNDING:
        return "0"
    return f"{value:#.3g}".rstrip(".") if 0.001 <= abs(value) < 999.5 else _scientific(value)


def signed_kl(value: float | None) -> str:
    """Difference of two KL divergences, in three digits: `-1.83`, `+0.0214`, `0`."""
    if value is None:
        return MISSING
    return "0" if abs(value) < ROUNDING else ("+" if value > 0 else "-") + kl(abs(value))


def nats(value: float | None) -> str:
    """KL divergence with its unit: `9.83 nats`."""
    return MISSING if value is None else f"{kl(value)} nats"


def change(value: float | None) -> str:
    """Change of a KL divergence or a logit, with its sign: `+3.25`, `-0.0812`, `0`."""
    if value is None:
        return MISSING
    return "0" if abs(value) < ROUNDING else ("+" if value > 0 else "-") + kl(abs(value))


def in_five_cells(value: float | None) -> str:
    """1 − cos, or KL without its unit, for narrow columns: `0.081`, `12.3`, `<.001`, `0`."""
    if value is None:
        return MISSING
    if abs(value) < ROUNDING:
        return "0"
    if value < 0.0005:
        return "<.001"
    return f"{value:.3f}" if value < 0.9995 else kl(value)


def share(value: float | None) -> str:
    """Share of a whole, in percent: `84.6%`."""
    return MISSING if value is None else f"{value:.1%}"


def difference(value: float | None) -> str:
    """Difference of two probabilities, in percent: `-2.13%`."""
    if value is None:
        return MISSING
    return f"{value:+.2%}" if abs(value) >= 0.00005 else "0.00%"


def deviation(value: float | None) -> str:
    """Root mean square of such differences, in percent: `2.13%`."""
    return MISSING if value is None else f"{value:.2%}"


def ratio(value: float | None) -> str:
    """Ratio of two perplexities: `1.034`."""
    return MISSING if value is None else f"{value:.4g}"


def score(value: float | None) -> str:
    """Score of a task: `0.625`; from 10 on in four digits, `23.14`."""
    if value is None:
        return MISSING
    if abs(value) < 9.9995:
        return f"{value:.3f}"
    return f"{value:#.4g}".rstrip(".") if abs(value) < 9999.5 else _scientific(value)


def score_difference(value: float | None) -> str:
    """Difference of two scores, with its sign: `-0.275`, `+1.250`, `0`."""
    if value is None:
        return MISSING
    return "0" if abs(value) < ROUNDING else ("+" if value > 0 else "-") + score(abs(value))


def interval(bounds: tuple[float, float] | None) -> str:
    """Interval of such a difference: `[-0.413, -0.138]`."""
    return MISSING if bounds is None else "[{}, {}]".format(*map(score_difference, bounds))


def p_value(value: float | None) -> str:
    """Probability of a test: `0.031`, `<.001`, `1`."""
    if value is None:
        return MISSING
    return "<.001" if value < 0.001 else f"{value:.3f}" if value < 0.9995 else "1"


def step_number(value: int | None, *, tie: bool = False) -> str:
    """Number of a step or of tokens; `≈ 4` if a tie made it; a dash if there is none."""
    return "–" if value is None else f"≈ {value}" if tie else f"{value}"


def collapse_step(start: int | None, *, as_baseline: bool) -> str:
    """Step at which a text collapses; `baseline too` if it repeats itself, but no more than the
    baseline's; a dash if it does not."""
    return "baseline too" if as_baseline else step_number(start)


def _scientific(value: float) -> str:
    """Scientific notation in two digits, without padding of the exponent: `9.3e-5`; `inf`."""
    if not math.isfinite(value):
        return f"{value}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"
