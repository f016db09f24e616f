"""Where texts collapse into repetition: made texts, and the formulas written out."""

from prunetui.engine.trace.analysis.collapse import collapse_start


def test_a_text_collapses_at_its_first_repeated_token() -> None:
    prose = [*range(1000, 1035)]
    assert collapse_start([*prose, *[7, 8, 9] * 30], ()) == 35
    assert collapse_start([*prose, *[7, 8, 9] * 30, *range(100)], ()) is None
