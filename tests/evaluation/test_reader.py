"""Texts read in all lanes against stock models that read one text at a time."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from prunetui.engine.evaluation.lanes import EvaluatedLanes
from prunetui.engine.evaluation.reader import LaneReader
from prunetui.engine.evaluation.requests import Request, Tokens
from prunetui.engine.model.anatomy import Anatomy, find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.results.records import Settings
from prunetui.engine.variants.builder import LaneModel
from prunetui.engine.variants.recipes import Recipe
from torch import Tensor
from transformers import PreTrainedModel

from ..support.models import make_model, without_sublayers
from ..support.references import cos, softmax

LANES = [
    Dropped(),
    Dropped(),
    Dropped(attention=frozenset({2})),
    Dropped(attention=frozenset({2}), mlp=frozenset({3})),
    Dropped(mlp=frozenset({0, 1})),
]
"""Baseline, control, and drops that begin late, later on the same stream, and at once."""

FAMILIES = pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen2", "qwen3", "gpt2", "gemma3_text", "mixtral"]
)


def make_reader(
    model: PreTrainedModel,
    lanes: Sequence[Dropped] = LANES,
    groups: dict[int, WeightGroup] | None = None,
    batch_size: int = 3,
) -> LaneReader:
    """A reader of lanes of one model, but for lanes that have a group of their own."""
    group = WeightGroup(model, find_anatomy(model))
    models = [
        LaneModel(Recipe((), str(number)), (groups or {}).get(number, group), dropped)
        for number, dropped in enumerate(lanes)
    ]
    settings = Settings(batch_size=batch_size)
    return LaneReader(EvaluatedLanes(None, models, Options(), settings, lambda *_: None))  # pyright: ignore[reportArgumentType]


def draw(seed: int, length: int) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(1, 250, (length,), generator=generator).tolist())


PREFIX = draw(0, 24)


def requests_of_a_task() -> list[Request]:
    """Options of one and of several tokens after examples that all contexts share, a context that
    is another's text, and several contexts of one item."""
    requests = []
    for item in range(4):
        context = PREFIX + draw(10 + item, 5 + item)
        options = [draw(100 * item + number, 1 + number % 3) for number in range(4)]
        requests += [Request(context, option) for option in options]
    stem = PREFIX + draw(20, 6)
    requests += [Request((*stem, name), (name, 7, 8)) for name in (5, 6)]
    requests.append(Request((*stem, 5, 5), (7, 9)))
    return [*requests, requests[2]]


@torch.inference_mode()
def stock(model: PreTrainedModel, anatomy: Anatomy, dropped: Dropped, tokens: Tokens) -> Tensor:
    """Logits float64 [positions, vocabulary] of the stock model without the dropped sublayers."""
    with without_sublayers(anatomy, dropped):
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double()


def silent(_done: float) -> None:
    pass


@FAMILIES
def test_ratings_are_those_of_stock_models_reading_one_text_at_a_time(family: str) -> None:
    model = make_model(family)
    anatomy = find_anatomy(model)
    requests = requests_of_a_task()
    ratings = make_reader(model).rate(requests, silent)
    assert len(ratings) == len(requests)
    greedy = set()
    for request, rating in zip(requests, ratings, strict=True):
        begin, end = len(request.context), len(request.context) + len(request.continuation)
        last = []
        for lane, dropped in enumerate(LANES):
            z = stock(model, anatomy, dropped, request.context + request.continuation[:-1])
            p = z[begin - 1 : end - 1].log_softmax(dim=-1)
            expected = sum(p[i, token].item() for i, token in enumerate(request.continuation))
            assert rating.logprobs[lane] == pytest.approx(expected, abs=3e-5)
            tokens = tuple(p.argmax(dim=-1).tolist())
            assert rating.greedy[lane] == (tokens == request.continuation)
            greedy.add(rating.greedy[lane])
            last.append(z[begin - 1].numpy())
        for z, drift in zip(last[1:], rating.drift, strict=True):
            p, q = softmax(last[0]), softmax(z)
            assert drift.kl == pytest.approx(float(p @ (np.log(p) - np.log(q))), abs=1e-5)
            assert drift.cos_z == pytest.approx(cos(last[0], z), abs=1e-6)
            assert drift.cos_p == pytest.approx(cos(p, q), abs=1e-5)
            assert drift.top1 == (p.argmax() == q.argmax())
