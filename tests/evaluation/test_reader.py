"""Texts read in all lanes against stock models that read one text at a time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.evaluation.lanes import EvaluatedLanes
from prunetui.engine.evaluation.reader import LaneReader, Pooling
from prunetui.engine.evaluation.requests import Request, Tokens
from prunetui.engine.measure.drift import MEASURES
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.progress import Cancelled
from prunetui.engine.results.records import Settings
from prunetui.engine.variants.builder import LaneModel
from prunetui.engine.variants.recipes import Recipe
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..support.families import DECODES, make_family
from ..support.models import make_model, without_sublayers
from ..support.references import cos, softmax

LANES = (
    Dropped(),
    Dropped(),
    Dropped(attention=frozenset({2})),
    Dropped(attention=frozenset({2}), mlp=frozenset({3})),
    Dropped(attention=frozenset({0, 3}), mlp=frozenset({1})),
    Dropped(attention=frozenset(range(4))),
)
"""Baseline, control, and drops that begin late, later on the same stream, and at once."""

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in ("llama", "qwen2", "gpt2", "gemma3_text", "mixtral")},
    "qwen3": ("qwen3", {"attention_bias": True}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral with a window": ("mistral", {"sliding_window": 6}),
    "qwen2 with some windows": (
        "qwen2",
        {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 2},
    ),
}


anatomy_of = lru_cache(maxsize=4)(find_anatomy)


def make_reader(
    model: PreTrainedModel,
    lanes: Sequence[Dropped] = LANES,
    own: WeightGroup | None = None,
    batch_size: int = 3,
) -> LaneReader:
    """A reader of lanes of one model; the last one has weights of its `own`, if there are any."""
    groups = [WeightGroup(model, anatomy_of(model))] * len(lanes)
    groups[len(lanes) - 1 :] = [own or groups[-1]]
    models = [
        LaneModel(Recipe((), str(number)), group, dropped)
        for number, (group, dropped) in enumerate(zip(groups, lanes, strict=True))
    ]
    loaded: Any = None
    settings = Settings(batch_size=batch_size)
    return LaneReader(EvaluatedLanes(loaded, models, Options(), settings, lambda *_: None))


def draw(seed: int, length: int) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(1, 250, (length,), generator=generator).tolist())


PREFIX = draw(0, 24)


def task(prefix: Tokens = PREFIX) -> list[Request]:
    """Options of one and of several tokens, of which one begins another's text, after examples
    that all contexts share; an item of several contexts; a request that comes twice."""
    requests = []
    for item in range(2):
        context = prefix + draw(10 + item, 5 + item)
        options = [draw(100 * item + number, 1 + number % 3) for number in range(4)]
        requests += [Request(context, option) for option in options]
    stem = prefix + draw(20, 6)
    requests += [Request((*stem, name), (name, 7, 8)) for name in (5, 6)]
    requests.append(Request((*stem, 5, 5), (7, 9)))
    return [*requests, requests[2]]


@torch.inference_mode()
def stock(model: PreTrainedModel, dropped: Dropped, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """h [positions, hidden] and logits [positions, vocabulary], float64, of the stock model without
    the dropped sublayers, reading one text."""
    kept: list[Tensor] = []
    anatomy = anatomy_of(model)
    hook = anatomy.head.register_forward_pre_hook(lambda _, args: kept.append(args[0][0]))
    with without_sublayers(anatomy, dropped):
        z = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    hook.remove()
    return kept[0].double(), z.double()


def head_of(model: PreTrainedModel) -> nn.Module:
    return anatomy_of(model).head


def silent(_done: float) -> None:
    pass


def count_positions(modules: Mapping[str, nn.Module]) -> Counter[str]:
    """Counts of the positions that modules read from now on, all rows together, and of calls."""
    counts: Counter[str] = Counter()

    def count(name: str) -> Any:
        def hook(_module: nn.Module, args: Any, kwargs: Any, _output: Any) -> None:
            x = args[0] if args else kwargs["hidden_states"]
            counts[name] += x.shape[:-1].numel()
            counts[f"{name} calls"] += 1

        return hook

    for name, module in modules.items():
        module.register_forward_hook(count(name), with_kwargs=True)
    return counts


@pytest.mark.parametrize("name", MODELS)
def test_ratings_are_those_of_stock_models_reading_one_text_at_a_time(name: str) -> None:
    family, config = MODELS[name]
    model = make_model(family, **config)
    requests = task()
    ratings = make_reader(model).rate(requests, silent)
    assert len(ratings) == len(requests)
    read = cache(partial(stock, model))
    for request, rating in zip(requests, ratings, strict=True):
        begin = len(request.context) - 1
        last: list[tuple[np.ndarray, np.ndarray]] = []
        for lane, dropped in enumerate(LANES):
            h, z = read(dropped, request.context + request.continuation[:-1])
            logprobs = z[begin:].log_softmax(dim=-1)
            expected = sum(
                x[token] for x, token in zip(logprobs, request.continuation, strict=True)
            )
            assert rating.logprobs[lane] == pytest.approx(float(expected), abs=3e-5)
            chosen = tuple(logprobs.argmax(dim=-1).tolist())
            assert rating.greedy[lane] == (chosen == request.continuation)
            last.append((h[begin].numpy(), z[begin].numpy()))
        (h0, z0), p = last[0], softmax(last[0][1])
        for (h, z), drift in zip(last[1:], rating.drift, strict=True):
            q = softmax(z)
            token = p.argmax()
            expected = {
                "cos_h": cos(h0, h),
                "cos_z": cos(z0, z),
                "cos_p": cos(p, q),
                "kl": p @ np.log(p / q),
                "kl_rev": q @ np.log(q / p),
                "dp": q[token] - p[token],
                "logq": np.log(q[token]),
                "par_h": (h - h0) @ h0 / (h0 @ h0),
            }
            found = {measure: getattr(drift, measure) for measure in expected}
            assert found == pytest.approx(expected, abs=2e-5)
            assert drift.top1 == (token == q.argmax())
            assert all(getattr(drift, measure) is not None for measure in MEASURES)


def test_an_option_that_a_lane_would_write_is_greedy() -> None:
    model = make_model("llama")
    context = draw(1, 9)
    lanes = (Dropped(), Dropped(mlp=frozenset({1, 2})))
    requests = []
    for dropped in lanes:
        option = context
        for _ in range(3):
            option += (int(stock(model, dropped, option)[1][-1].argmax()),)
        requests.append(Request(context, option[len(context) :]))
    requests.append(Request(context, (*requests[0].continuation[:2], 3)))
    greedy = [rating.greedy for rating in make_reader(model, lanes).rate(requests, silent)]
    assert greedy == [[True, False], [False, True], [False, False]]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_control_is_the_baseline_to_the_bit(family: str) -> None:
    for rating in make_reader(make_model(family)).rate(task(), silent):
        assert rating.logprobs[1] == rating.logprobs[0]
        assert rating.drift[0].kl == rating.drift[0].dp == 0.0
        assert rating.drift[0].cos_h == rating.drift[0].cos_p == 1.0
        assert rating.drift[1].kl != 0.0


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_same_requests_give_the_same_bits_and_others_do_not_matter_much(family: str) -> None:
    reader = make_reader(make_model(family))
    requests = task()
    together, again = reader.rate(requests, silent), reader.rate(requests, silent)
    assert together == again
    for request, rating in zip(requests, together, strict=True):
        # Nothing is shared with a request that is alone.
        (alone,) = reader.rate([request], silent)
        assert rating.logprobs == pytest.approx(alone.logprobs, abs=3e-5)
        assert rating.greedy == alone.greedy
        kl = [drift.kl for drift in rating.drift]
        assert kl == pytest.approx([drift.kl for drift in alone.drift], abs=2e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_logits_are_read_some_positions_at_a_time(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    reader = make_reader(make_model(family))
    requests = [Request(draw(1, 4), draw(2, 9)), Request(draw(3, 6), draw(4, 2)), *task()]
    whole = reader.rate(requests, silent)
    monkeypatch.setattr("prunetui.engine.evaluation.stream_numbers.POSITIONS", 2)
    for rating, expected in zip(reader.rate(requests, silent), whole, strict=True):
        assert rating.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
        assert rating.greedy == expected.greedy
        kl = [drift.kl for drift in rating.drift]
        assert kl == pytest.approx([drift.kl for drift in expected.drift], abs=1e-5)


def test_lanes_share_what_comes_before_their_first_dropped_sublayer() -> None:
    model = make_model("llama")
    lanes = (
        Dropped(),
        Dropped(),
        Dropped(mlp=frozenset({3})),
        Dropped(attention=frozenset({2, 3})),
        Dropped(attention=frozenset({2})),
    )
    reader = make_reader(model, lanes, batch_size=100)
    layers: Any = model.get_submodule("model.layers")
    modules = {"head": head_of(model)}
    modules |= {f"attention {n}": layer.self_attn for n, layer in enumerate(layers)}
    modules |= {f"mlp {n}": layer.mlp for n, layer in enumerate(layers)}
    counts = count_positions(modules)
    reader.rate([Request(draw(1, 20), draw(2, 3)), Request(draw(3, 20), draw(4, 3))], silent)
    text, needed = 2 * 22, 2 * 3
    for number in (0, 1):
        assert counts[f"attention {number}"] == counts[f"mlp {number}"] == text
    # Lanes 3 and 4 leave together at attention 2, and part at attention 3.
    assert counts["attention 2"] == text
    # No later attention reads lane 3's other positions.
    assert counts["mlp 2"] == 2 * text
    assert counts["attention 3"] == 2 * text
    # Baseline, lane 3 and lane 4; lane 2 leaves the baseline here.
    assert counts["mlp 3"] == 3 * needed
    assert counts["head"] == 4 * needed
    assert counts["mlp 3 calls"] == 3


def test_what_texts_begin_with_is_read_once() -> None:
    model = make_model("llama")
    reader = make_reader(model, [Dropped()], batch_size=4)
    attention = model.get_submodule("model.layers.0.self_attn")
    counts = count_positions({"attention": attention, "head": head_of(model)})
    contexts = [(*PREFIX, *draw(item, 6)) for item in range(1, 5)]
    requests = [Request(context, (option, 9)) for context in contexts for option in (1, 2, 3)]
    reader.rate(requests, silent)
    # The prefix once, then four contexts, each with a token of each of three options.
    assert counts["attention"] == len(PREFIX) + 4 * (6 + 3)
    assert counts["head"] == 4 * (1 + 3)


@pytest.mark.parametrize("family", ["gpt2", "gemma3_text"])
def test_other_families_take_a_forward_pass_for_each_set_of_drops(family: str) -> None:
    model = make_model(family)
    reader = make_reader(model, [*LANES[:3], LANES[2], LANES[1]], batch_size=100)
    counts = count_positions({"head": head_of(model)})
    context = draw(1, 20)
    # The first option's text is the context, which the second one's begins with.
    reader.rate([Request(context, (3,)), Request(context, (3, 4))], silent)
    assert counts["head calls"] == 2
    assert counts["head"] == 2 * 2


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_lane_with_other_weights_is_read_with_its_own(family: str) -> None:
    model, other = make_model(family), make_model(family, seed=1)
    lanes = (Dropped(), Dropped(mlp=frozenset({1})), Dropped(mlp=frozenset({1})))
    reader = make_reader(model, lanes, own=WeightGroup(other, anatomy_of(other)))
    requests = task()
    for request, rating in zip(requests, reader.rate(requests, silent), strict=True):
        text = request.context + request.continuation[:-1]
        for lane, each in enumerate((model, model, other)):
            logprobs = stock(each, lanes[lane], text)[1].log_softmax(dim=-1)
            expected = sum(
                float(logprobs[len(request.context) - 1 + i, token])
                for i, token in enumerate(request.continuation)
            )
            assert rating.logprobs[lane] == pytest.approx(expected, abs=3e-5)


def test_logits_that_are_no_numbers_have_no_measures_of_z_and_p() -> None:
    model, other = make_model("llama"), make_model("llama")
    other.get_parameter("lm_head.weight")[7] = torch.nan
    reader = make_reader(model, LANES[:3], own=WeightGroup(other, anatomy_of(other)))
    (rating,) = reader.rate([Request(draw(1, 5), (7, 3))], silent)
    assert np.isfinite(rating.logprobs).tolist() == [True, True, False]
    assert rating.greedy[2] is False
    assert not rating.drift[0].not_comparable
    drift = rating.drift[1]
    assert drift.not_comparable
    assert drift.kl is drift.cos_z is None
    assert drift.cos_h is not None


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_embeddings_are_the_heads_inputs_without_padding(family: str, pooling: Pooling) -> None:
    model = make_model(family)
    texts = [draw(1, 12), draw(2, 3), draw(1, 12)[:5], draw(3, 7), draw(2, 3), draw(4, 1)]
    embeddings = make_reader(model).embed(texts, pooling, silent)
    assert embeddings.shape == (len(LANES), len(texts), 32)
    assert embeddings.dtype == torch.float32
    for lane, dropped in enumerate(LANES):
        for number, text in enumerate(texts):
            h = stock(model, dropped, text)[0]
            expected = h[-1] if pooling == "last" else h.mean(dim=0)
            torch.testing.assert_close(
                embeddings[lane, number].double(), expected, rtol=1e-4, atol=1e-5
            )


def test_the_noise_floor_is_the_largest_change_between_batches_and_texts_alone() -> None:
    reader = make_reader(make_model("llama"))
    requests = task()
    changes = [
        abs(rating.logprobs[0] - reader.rate([request], silent)[0].logprobs[0])
        for request, rating in zip(requests, reader.rate(requests, silent), strict=True)
    ]
    assert reader.noise_floor(requests) == max(changes) > 0


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_models_are_left_as_they_were(family: str) -> None:
    model = make_model(family)
    before = {name: vars(module).copy() for name, module in model.named_modules()}
    reader = make_reader(model)

    def cancel(_done: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        reader.rate(task(), cancel)
    reader.rate(task(), silent)
    for name, module in model.named_modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert vars(module).keys() == before[name].keys()


def test_fractions_that_are_reported_rise_to_one() -> None:
    done: list[float] = []
    make_reader(make_model("llama"), batch_size=1).rate(task(), done.append)
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1)
    assert len(done) > 2


def test_memory_that_runs_out_is_said_with_what_needs_less() -> None:
    model = make_model("llama")
    reader = make_reader(model, batch_size=2)

    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.get_submodule("model.norm").register_forward_hook(run_out)
    for read in (
        lambda: reader.rate(task(), silent),
        lambda: reader.embed([(1, 2)], "last", silent),
        lambda: reader.noise_floor(task()),
    ):
        with pytest.raises(UserError, match=r"out of memory .* smaller --batch-size needs less"):
            read()
    with pytest.raises(UserError, match="batches of 1; fewer variants need less"):
        make_reader(model, batch_size=1).embed([(1, 2)], "last", silent)


def test_code_of_a_model_that_fails_becomes_a_sentence() -> None:
    model = make_model("gpt2")
    reader = make_reader(model)

    def fail(*_: object) -> None:
        raise ValueError("no such mask")

    anatomy_of(model).layers[0].module.register_forward_hook(fail)
    with pytest.raises(UserError, match=r"this gpt2 model cannot read .*no such mask"):
        reader.rate(task(), silent)


def test_texts_whose_length_changes_the_rotary_angles_are_read_alone() -> None:
    scaling = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    settings = {"rope_parameters": scaling, "max_position_embeddings": 16}
    reader = make_reader(make_model("llama", **settings), LANES[:1])
    requests = [Request(draw(length, length), (3, 4)) for length in (40, 25, 10)]
    for request, rating in zip(requests, reader.rate(requests, silent), strict=True):
        # Stock code keeps the angles of the longest text that it has read: a model of its own.
        z = stock(make_model("llama", **settings), Dropped(), (*request.context, 3))[1]
        expected = z[-2].log_softmax(dim=-1)[3] + z[-1].log_softmax(dim=-1)[4]
        assert rating.logprobs[0] == pytest.approx(float(expected), abs=3e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(DECODES))
def test_every_family_is_rated_as_its_stock_model_rates_a_text(family: str) -> None:
    model = make_family(family)
    lanes = [Dropped()]
    if anatomy_of(model).droppable:
        lanes.append(Dropped(attention=frozenset({1}), mlp=frozenset({2})))
    requests = task()[:6]
    ratings = make_reader(model, lanes).rate(requests, silent)
    for request, rating in zip(requests, ratings, strict=True):
        for lane, dropped in enumerate(lanes):
            z = stock(model, dropped, request.context + request.continuation[:-1])[1]
            logprobs = z[len(request.context) - 1 :].log_softmax(dim=-1)
            expected = sum(
                x[token] for x, token in zip(logprobs, request.continuation, strict=True)
            )
            assert rating.logprobs[lane] == pytest.approx(float(expected), abs=1e-3)
