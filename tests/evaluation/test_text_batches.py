"""Layouts of texts: every position reads just the text before it, in few positions."""

import random

import pytest
import torch
from prunetui.engine.evaluation.branched_forward import attention_mask
from prunetui.engine.evaluation.requests import Tokens
from prunetui.engine.evaluation.text_batches import Plan, Text, plan_alone, plan_texts

CPU = torch.device("cpu")


def random_texts(seed: int) -> list[Text]:
    """Distinct texts of few tokens, of which many begin alike, after a prefix or none."""
    rng = random.Random(seed)
    stems = [
        tuple(rng.choices(range(1, 4), k=rng.randrange(10))) for _ in range(rng.randrange(1, 5))
    ]
    prefix = tuple(rng.choices(range(1, 9), k=rng.choice([0, 5, 30])))
    tokens = {
        (*prefix, *rng.choice(stems), *rng.choices(range(1, 4), k=rng.randrange(1, 4)))
        for _ in range(rng.randrange(1, 16))
    }
    return [Text(text, range(rng.randrange(len(text)), len(text))) for text in sorted(tokens)]


def positions_read(plan: Plan) -> int:
    """Positions of all rows and of the prefix, padding included."""
    return len(plan.prefix) + sum(batch.tokens.numel() for batch in plan.batches)


def visible(plan: Plan, number: int, text: int, position: int, window: int | None) -> Tokens:
    """What a needed position attends to, in the order of the positions."""
    batch = plan.batches[number]
    index = batch.index[text, position]
    row, column = int(batch.rows[index]), int(batch.columns[index])
    assert batch.positions[row, column] == position
    mask = attention_mask(batch, window, CPU)
    if mask is None:
        assert batch.prefix == 0
        return tuple(batch.tokens[row, : column + 1].tolist())
    allowed = mask[row if len(mask) > 1 else 0, 0, column]
    tokens = torch.cat((torch.tensor(plan.prefix, dtype=torch.int64), batch.tokens[row]))
    before = torch.arange(batch.prefix)
    positions = torch.cat((before, batch.positions[row]))[allowed]
    assert positions.tolist() == sorted(positions.tolist())
    return tuple(tokens[allowed].tolist())


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("shared", [True, False])
def test_a_needed_position_attends_to_its_text_alone(*, shared: bool, window: int | None) -> None:
    tailed = prefixed = 0
    for seed in range(40):
        texts = random_texts(seed)
        plan = plan_texts(texts, 3, shared=shared)
        found = set()
        for number, batch in enumerate(plan.batches):
            assert len(batch.tokens) <= 3
            assert batch.prefix == len(plan.prefix)
            tailed += batch.tails is not None
            prefixed += batch.prefix > 0
            for text, position in batch.index:
                tokens = texts[text].tokens[: position + 1]
                seen = visible(plan, number, text, position, window)
                assert seen == (tokens if window is None else tokens[-window:])
                found.add((text, position))
        assert found == {(n, p) for n, text in enumerate(texts) for p in text.needed}
    assert bool(tailed) == bool(prefixed) == shared


def test_texts_share_the_beginning_that_saves_most() -> None:
    prefix = tuple(range(100, 140))
    texts = [
        Text((*prefix, *item, option), [len(prefix) + 4, len(prefix) + 5])
        for item in ((1, 2, 3, 4, 5), (6, 7, 8, 9, 10))
        for option in (50, 51, 52)
    ]
    plan = plan_texts(texts, 8, shared=True)
    assert plan.prefix == prefix
    assert positions_read(plan) == 40 + 2 * (5 + 3)
    (batch,) = plan.batches
    assert len(batch.rows) == 2 * (1 + 3)
    # Without a few tokens in common there is no prefix.
    few = [Text((1, *range(10 * n, 10 * n + 9)), [9]) for n in range(1, 4)]
    assert plan_texts(few, 8, shared=True).prefix == ()


def test_a_prefix_ends_before_the_first_needed_position() -> None:
    texts = [Text((1,) * 30 + (n,), [20, 30]) for n in (2, 3)]
    plan = plan_texts(texts, 1, shared=True)
    assert len(plan.prefix) <= 20
    assert {key for batch in plan.batches for key in batch.index} == {
        *((0, 20), (0, 30), (1, 20), (1, 30))
    }


def test_unshared_texts_are_rows_but_for_those_that_others_begin_with() -> None:
    texts = [Text(tokens, [len(tokens) - 1]) for tokens in ((1, 2), (1, 2, 3), (1, 2, 4), (1,))]
    plan = plan_texts(texts, 8, shared=False)
    (batch,) = plan.batches
    assert batch.tails is None
    assert batch.tokens.tolist() == [[1, 2, 3], [1, 2, 4]]
    assert len(batch.index) == 4


def test_batches_hold_the_longest_first_and_no_more_positions_than_texts_of_that_length() -> None:
    lengths = [9, 3, 7, 5, 8, 4, 6]
    texts = [Text((length,) * length, [length - 1]) for length in lengths]
    plan = plan_texts(texts, 2, shared=False)
    assert [batch.tokens.shape[1] for batch in plan.batches] == [9, 7, 5, 3]
    assert all(len(batch.tokens) <= 2 for batch in plan.batches)
    # Two tails of three make rows longer than a text: fewer of them are read at once.
    stems = [tuple(range(10 * n, 10 * n + 8)) for n in range(1, 5)]
    alike = [Text((*stem, *(o,) * 3), [10]) for stem in stems for o in (97, 98)]
    sizes = [batch.tokens.shape for batch in plan_texts(alike, 4, shared=True).batches]
    assert [tuple(size) for size in sizes] == [(3, 14), (1, 14)]


def test_each_text_alone_is_a_batch_without_padding() -> None:
    texts = random_texts(3)
    plan = plan_alone(texts)
    assert plan.prefix == ()
    assert [tuple(batch.tokens[0].tolist()) for batch in plan.batches] == [
        text.tokens for text in texts
    ]
    assert all(len(batch.tokens) == 1 for batch in plan.batches)
