import random
from pathlib import Path

import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.trace.printable import visible
from prunetui.engine.variants.recipe_paths import quoted
from prunetui.engine.variants.recipes import (
    Checkpoint,
    Drop,
    Pattern,
    Recipe,
    Restore,
    Sparsify,
    parse,
)


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("drop:attn=8", Recipe((Drop("attn", count=8),))),
        ("drop:mlp=[26,25]", Recipe((Drop("mlp", layers=(25, 26)),))),
        ("drop:attn=[ 3 , 3 ]", Recipe((Drop("attn", layers=(3,)),))),
        ("drop:attn=4+drop:mlp=[0]", Recipe((Drop("attn", count=4), Drop("mlp", layers=(0,))))),
        ("drop:joint=3,iterative", Recipe((Drop("joint", count=3, iterative=True),))),
        ("drop:block=5,consecutive", Recipe((Drop("block", count=5, consecutive=True),))),
        ("drop:mlp=2,by=kl", Recipe((Drop("mlp", count=2, by="kl"),))),
        (
            "drop:joint=2,iterative,by=kl:./a b=1:2.txt+drop:block=2,consecutive,by=kl",
            Recipe(
                (
                    Drop("joint", count=2, iterative=True, by="kl", text="./a b=1:2.txt"),
                    Drop("block", count=2, consecutive=True, by="kl"),
                )
            ),
        ),
        ("drop:attn=2,by=kl:'a,+.txt'", Recipe((Drop("attn", count=2, by="kl", text="a,+.txt"),))),
        ("drop:block=[1]", Recipe((Drop("block", layers=(1,)),))),
        ("magnitude:0.5", Recipe((Sparsify("magnitude", 0.5),))),
        ("wanda:.25", Recipe((Sparsify("wanda", 0.25),))),
        ("sparsegpt:4:8", Recipe((Sparsify("sparsegpt", Pattern(4, 8)),))),
        (
            "wanda:2:4+drop:attn=4",
            Recipe((Sparsify("wanda", Pattern(2, 4)), Drop("attn", count=4))),
        ),
        (
            "drop:attn=8+restore:attn=[25, 3]+restore:block=[1]",
            Recipe((Drop("attn", count=8), Restore("attn", (3, 25)), Restore("block", (1,)))),
        ),
        (
            "./m+restore:outside+restore:mlp=[0]",
            Recipe((Checkpoint("./m"), Restore("outside"), Restore("mlp", (0,)))),
        ),
        ("control", Recipe(())),
        ("noise=control", Recipe((), "noise")),
        ("my-8=drop:attn=8", Recipe((Drop("attn", count=8),), "my-8")),
        ("./pruned", Recipe((Checkpoint("./pruned"),))),
        ("org/model-v1.2", Recipe((Checkpoint("org/model-v1.2"),))),
        ("~/m+drop:mlp=1", Recipe((Checkpoint("~/m"), Drop("mlp", count=1)))),
    ],
)
def test_a_recipe_parses_and_its_text_parses_to_it_again(text: str, recipe: Recipe) -> None:
    assert parse(text) == recipe
    assert parse(str(recipe)) == recipe


def test_a_lane_is_named_by_its_recipe_or_as_it_says() -> None:
    assert parse("drop:attn=[2,1]").name == "drop:attn=[1,2]"
    named = parse("few=drop:attn=[2,1]")
    assert (named.name, named.text) == ("few", "drop:attn=[1,2]")
    assert parse("control").name == "control"


def test_a_bare_word_is_a_checkpoint_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="'▸pruned' does not parse"):
        parse("pruned")
    (tmp_path / "pruned").mkdir()
    assert parse("pruned") == Recipe((Checkpoint("pruned"),))


SWEEPS = ["lr=0.001,sparsity=0.5", "wanda+lora", "sparse 2:4", "a b", "x=y+z", "[1]", "it's"]


@pytest.mark.parametrize("name", SWEEPS)
def test_a_path_that_exists_needs_no_quotes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep" / name).mkdir(parents=True)
    (tmp_path / name).mkdir()
    for path in (name, f"./{name}", f"sweep/{name}", str(tmp_path / name)):
        checkpoint = Checkpoint(path)
        alone = Recipe((checkpoint,))
        assert parse(path) == parse(quoted(checkpoint.source)) == parse(str(alone)) == alone
        more = Recipe((Checkpoint(path), Drop("attn", count=4)), "n")
        assert parse(f"n={path}+drop:attn=4") == parse(str(more)) == more


def test_a_text_that_could_be_two_recipes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "a+wanda:0.5", "wanda:0.5", "control"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"as a and 'a\+wanda:0.5' exist; put the path that is"):
        parse("a+wanda:0.5")
    pruned = Recipe((Checkpoint("a"), Sparsify("wanda", 0.5)))
    ready = Recipe((Checkpoint("a+wanda:0.5"),))
    assert parse("'a'+wanda:0.5") == parse(str(pruned)) == pruned
    assert parse("'a+wanda:0.5'") == parse(str(ready)) == ready
    # What the language has a word for is that.
    assert parse("wanda:0.5") == Recipe((Sparsify("wanda", 0.5),))
    assert parse("'wanda:0.5'") == Recipe((Checkpoint("wanda:0.5"),))
    assert parse("control") == Recipe(())
    assert parse(str(parse("'control'"))) == Recipe((Checkpoint("control"),))


NASTY = "ab/~.+:=,'\"\\ \n\t\x1b\x7f[]@-_漢é\u202e\U000e0001"


@pytest.mark.parametrize("exist", [False, True])
def test_the_text_of_any_checkpoint_parses_to_it_again(
    exist: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chance = random.Random(0)
    for _ in range(1000):
        source = "".join(chance.choices(NASTY, k=chance.randint(1, 6)))
        if exist and not source.startswith("/"):
            Path(source).mkdir(parents=True, exist_ok=True)
        name = chance.choice(["", "few"])
        more = chance.choice([(), (Drop("mlp", layers=(1, 2)),), (Sparsify("wanda", 0.5),)])
        by_kl = Drop("attn", 3, iterative=name == "", by="kl", text=source)
        more += chance.choice([(), (by_kl,), (Restore("mlp", (1,)),), (Restore("outside"),)])
        recipe = Recipe((Checkpoint(source), *more), name)
        text = str(recipe)
        assert visible(text) == text.strip() == text
        assert parse(text) == recipe
        assert parse(recipe.text) == Recipe(recipe.parts)


@pytest.mark.parametrize("text", ["'a", "''", '""', '"\\x"', "'a'b", "wanda:0.5+'a'"])
def test_quotes_that_are_not_whole(text: str) -> None:
    with pytest.raises(UserError, match=r"does not parse.*a path with . : or = in it goes in quot"):
        parse(text)


ANY_PART = "drop:, restore:, magnitude:, wanda:, sparsegpt:"


@pytest.mark.parametrize(
    ("text", "shown", "expected"),
    [
        ("", "▸", f"{ANY_PART}, control or a checkpoint"),
        ("dorp:attn=4", "▸dorp:attn=4", f"{ANY_PART}, control or a checkpoint"),
        ("drop:atn=4", "drop:▸atn=4", "attn, mlp, joint or block"),
        ("drop:attn", "drop:attn▸", "="),
        ("drop:attn=", "drop:attn=▸", "4 or [3,7]"),
        ("drop:attn=-1", "drop:attn=▸-1", "4 or [3,7]"),
        ("drop:attn=[1,]", "drop:attn=▸[1,]", "4 or [3,7]"),
        ("drop:attn=٣", "drop:attn=▸٣", "4 or [3,7]"),
        ("drop:attn=4 ", "drop:attn=4▸ ", "+ or the end"),
        ("drop:attn=4+", "drop:attn=4+▸", ANY_PART),
        ("drop:attn=4+control", "drop:attn=4+▸control", ANY_PART),
        ("drop:attn=4,backwards", "drop:attn=4,▸backwards", "iterative, consecutive or by=kl"),
        ("drop:attn=4,by=", "drop:attn=4,▸by=", "iterative, consecutive or by=kl"),
        ("drop:attn=4,by=kl:", "drop:attn=4,by=kl:▸", "a text file"),
        ("drop:attn=4,by=kl:'a", "drop:attn=4,by=kl:▸'a", "a text file"),
        ('drop:attn=4,by=kl:"\\x"', 'drop:attn=4,by=kl:▸"\\x"', "a JSON string in the quotes"),
        ("drop:attn=[4],by=kl", "drop:attn=[4]▸,by=kl", "+ or the end"),
        ("restore:attn=4", "restore:attn=▸4", "[3,7]"),
        ("restore:joint=[4]", "restore:▸joint=[4]", "attn, mlp, block or outside"),
        ("restore:outside=[4]", "restore:outside▸=[4]", "+ or the end"),
        ("wanda:", "wanda:▸", "0.5 or 2:4"),
        ("wanda:half", "wanda:▸half", "0.5 or 2:4"),
        ("wanda:1e-1", "wanda:▸1e-1", "0.5 or 2:4"),
        ("wanda:50%", "wanda:▸50%", "0.5 or 2:4"),
        ("wanda:2:4:8", "wanda:▸2:4:8", "0.5 or 2:4"),
    ],
)
def test_what_does_not_parse_is_shown_where(text: str, shown: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text)
    assert f"{shown!r} does not parse at ▸" in str(error.value)
    assert f"expected {expected};" in str(error.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("drop:attn=0", "drops nothing"),
        ("drop:attn=1000000", "does not parse"),
        ("wanda:0.0", "has a sparsity of 0.0, which is not between 0 and 1"),
        ("wanda:1.5", "has a sparsity of 1.5"),
        ("sparsegpt:4:4", "zeroes 4 of 4; N:M needs 0 < N < M"),
        ("drop:joint=[1]", "lists layers for joint"),
        ("drop:attn=4,consecutive", "consecutive goes with drop:block"),
        ("drop:block=4,consecutive,iterative", "choose iterative or consecutive"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        parse(text)


@pytest.mark.parametrize("text", ["wanda:0.00001", "magnitude:0.5", "sparsegpt:0.000000123"])
def test_a_sparsity_reads_as_it_was_written(text: str) -> None:
    assert str(parse(text)) == text
