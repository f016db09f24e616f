"""Grids: what one line stands for, and the sentences for those that do not parse."""

from pathlib import Path

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.sweep.grid import expand, grid_recipes


@pytest.mark.parametrize(
    ("grid", "texts"),
    [
        ("drop:attn={0..3}", ["drop:attn=0", "drop:attn=1", "drop:attn=2", "drop:attn=3"]),
        ("drop:mlp={0..12..5}", ["drop:mlp=0", "drop:mlp=5", "drop:mlp=10"]),
        ("drop:mlp={8..2..3}", ["drop:mlp=8", "drop:mlp=5", "drop:mlp=2"]),
        ("wanda:{0.3,0.5,2:4}", ["wanda:0.3", "wanda:0.5", "wanda:2:4"]),
        ("wanda:{0.1..0.35..0.1}", ["wanda:0.1", "wanda:0.2", "wanda:0.3"]),
        ("drop:attn=[{1,2,},3]", None),
        ("drop:attn=[{1,2},3]", ["drop:attn=[1,3]", "drop:attn=[2,3]"]),
        ("drop:attn={4}", ["drop:attn=4"]),
        ("drop:attn=4", ["drop:attn=4"]),
        ("{../a,./b}", ["../a", "./b"]),
        (
            "drop:{attn,mlp}={1,2}",
            ["drop:attn=1", "drop:attn=2", "drop:mlp=1", "drop:mlp=2"],
        ),
        ("'./a{1}'+drop:attn={1,2}", ["'./a{1}'+drop:attn=1", "'./a{1}'+drop:attn=2"]),
    ],
)
def test_braces_stand_for_values(grid: str, texts: list[str] | None) -> None:
    if texts is None:
        with pytest.raises(UserError, match="expected a value"):
            expand(grid)
    else:
        assert expand(grid) == texts


def test_the_path_of_a_checkpoint_may_have_braces(tmp_path: Path) -> None:
    directory = tmp_path / "a{1,2}"
    directory.mkdir()
    assert expand(str(directory)) == [str(directory)]


def test_recipes_are_named_once_and_zero_is_a_control() -> None:
    recipes = grid_recipes(
        ["drop:attn={0..2}", "drop:attn={2,1}", "wanda:{0,0.5}", "drop:attn={0,1}+drop:mlp={0,1}"]
    )
    assert [recipe.text for recipe in recipes] == [
        *("control", "drop:attn=1", "drop:attn=2", "wanda:0.5"),
        *("drop:mlp=1", "drop:attn=1+drop:mlp=1"),
    ]


def test_a_name_is_for_one_recipe() -> None:
    assert grid_recipes(["mine=drop:attn={4}"])[0].name == "mine"
    with pytest.raises(UserError, match="gives 2 recipes the one name mine"):
        grid_recipes(["mine=drop:attn={4,5}"])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("drop:attn={0..x}", r"'drop:attn=\{▸0..x\}' .*character 12.*: expected two numbers"),
        ("drop:attn={}", r"'drop:attn=\{▸\}' .*: expected a value"),
        ("drop:attn={1,,2}", r"'drop:attn=\{1,▸,2\}' .*character 14.*: expected a value"),
        ("drop:attn={0..4..0}", r"\{▸0..4..0\}.*: a step of 0 never ends"),
        ("wanda:{0.1..0.5}", r"\{▸0.1..0.5\}.*: a range of fractions needs a step"),
        ("drop:attn={0..4", r"'drop:attn=▸\{0..4' .*: the brace \{ has no other one"),
        ("drop:attn=0..4}", r"'drop:attn=0..4▸\}' .*: the brace \} has no other one"),
        ("drop:attn={{1,2}}", r"'drop:attn=▸\{\{1,2\}\}' .*: the brace \{ has no other one"),
        ("drop:attn={0..900000}", "has 900001 values, and a sweep at most 4096"),
        ("drop:attn={0..99}+drop:mlp={0..99}", "has 10000 recipes or more"),
        ("drop:attn={1,x}", "recipe 'drop:attn=▸x' does not parse"),
        ("wanda:{0.5,1}", "has a sparsity of 1, which is not between 0 and 1"),
    ],
)
def test_bad_grids_are_refused_with_the_place(grid: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        grid_recipes([grid])
