import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.lockstep import LaneGates
from prunetui.engine.recipes import Drop, Recipe, parse
from prunetui.engine.variants import drop_gates

SIMILARITY = {"attn": [0.5, 0.9, 0.7, 0.8], "mlp": [0.1, 0.2, 0.4, 0.3]}


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("drop:attn=8", Recipe((Drop("attn", count=8),))),
        ("drop:mlp=[26,25]", Recipe((Drop("mlp", layers=(25, 26)),))),
        ("drop:attn=[ 3 , 3 ]", Recipe((Drop("attn", layers=(3,)),))),
        ("drop:attn=4+drop:mlp=[0]", Recipe((Drop("attn", count=4), Drop("mlp", layers=(0,))))),
    ],
)
def test_a_recipe_parses_and_its_text_parses_to_it_again(text: str, recipe: Recipe) -> None:
    assert parse(text) == recipe
    assert parse(str(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "shown", "expected"),
    [
        ("", "▸", "drop:"),
        ("dorp:attn=4", "▸dorp:attn=4", "drop:"),
        ("drop:atn=4", "drop:▸atn=4", "attn or mlp"),
        ("drop:attn", "drop:attn▸", "="),
        ("drop:attn=", "drop:attn=▸", "4 or [3,7]"),
        ("drop:attn=-1", "drop:attn=▸-1", "4 or [3,7]"),
        ("drop:attn=[1,]", "drop:attn=▸[1,]", "4 or [3,7]"),
        ("drop:attn=4 ", "drop:attn=4▸ ", "+ or the end"),
        ("drop:attn=4+", "drop:attn=4+▸", "drop:"),
        ("drop:attn=٣", "drop:attn=▸٣", "4 or [3,7]"),
    ],
)
def test_what_does_not_parse_is_shown_where(text: str, shown: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text)
    assert f"{shown!r} does not parse at ▸" in str(error.value)
    assert f"expected {expected};" in str(error.value)


def test_dropping_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="drops nothing"):
        parse("drop:attn=0")


def gates(text: str) -> LaneGates:
    return drop_gates(parse(text), 4, lambda: SIMILARITY)


def test_a_count_takes_the_sublayers_that_change_the_stream_least() -> None:
    assert gates("drop:attn=2") == LaneGates(attention=frozenset({1, 3}))
    assert gates("drop:mlp=1") == LaneGates(mlp=frozenset({2}))


def test_parts_apply_left_to_right_to_what_is_left() -> None:
    assert gates("drop:attn=[1]+drop:attn=2") == LaneGates(attention=frozenset({1, 2, 3}))
    assert gates("drop:attn=1+drop:attn=[1]") == LaneGates(attention=frozenset({1}))
    assert gates("drop:attn=1+drop:mlp=1") == LaneGates(frozenset({1}), frozenset({2}))


def test_a_list_needs_no_ranking() -> None:
    def never() -> dict[str, list[float]]:
        raise AssertionError("ranked")

    assert drop_gates(parse("drop:attn=[0]"), 4, never) == LaneGates(attention=frozenset({0}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drop:attn=5", "drops 5 attention sublayers, but there are 4 to drop"),
        ("drop:mlp=[4]", "names layer 4, but the model's 4 layers are 0 to 3"),
        ("drop:mlp=[0,1]+drop:mlp=3", "drops 3 MLP sublayers, but there are 2 to drop"),
    ],
)
def test_dropping_more_than_there_is_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        gates(text)
