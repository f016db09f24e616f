"""Where a lane's next token comes from: parts, text and depth, against stock models."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
import torch
from prunetui.engine.blame import in_text
from prunetui.engine.blame.blamed_step import BlamedStep
from prunetui.engine.blame.in_depth import where_in_depth
from prunetui.engine.blame.in_text import where_in_text
from prunetui.engine.blame.parts import blame_parts
from prunetui.engine.blame.pruned_lane import PrunedLane
from prunetui.engine.errors import UserError
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.kl_divergence import rounding_kl
from prunetui.engine.model.stream_writes import takes_writes
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.trace.blame import Blame, NextToken, Part
from prunetui.engine.variants.builder import LaneModel
from prunetui.engine.variants.recipes import Recipe
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from ..support.forms import kl, stock_form, stock_logits, with_other_weights
from ..support.models import VOCABULARY, make_model, moved

TEXT = [5, 17, 200, 31, 8, 99, 42, 7, 128, 64, 3, 77]
DROPPED = Dropped(attention=frozenset({0, 3}), mlp=frozenset({1}))
TEXTS = {token: f"<{token}>" for token in range(VOCABULARY)}
STEP = BlamedStep(lane=1, tokens="baseline", text=TEXT, prompt=4, temperature=1.0, texts=TEXTS)


def nothing(*_: object) -> None:
    pass


class Case:
    """A baseline, a lane, and the lane as a stock model of its own."""

    def __init__(
        self, family: str, *, other_weights: bool = False, dropped: Dropped = DROPPED
    ) -> None:
        model = make_model(family)
        variant = with_other_weights(model) if other_weights else model
        self.baseline = WeightGroup(model, find_anatomy(model))
        own = WeightGroup(variant, find_anatomy(variant)) if other_weights else self.baseline
        self.lane = LaneModel(Recipe((), "lane"), own, dropped)
        self.pruned = PrunedLane(self.baseline, self.lane)
        self.stock = stock_form(model, variant, dropped, frozenset(self.pruned.parts))
        self.p = stock_logits(model, TEXT, [-1])[0]

    @property
    def models(self) -> tuple[PreTrainedModel, PreTrainedModel]:
        return self.baseline.model, self.stock

    def blame(self) -> Blame:
        return blame_parts(self.pruned, STEP, nothing)

    def check(self, found: NextToken | None, z: Tensor) -> None:
        assert found is not None
        assert found.kl == pytest.approx(float(kl(self.p, z)), abs=1e-6)
        assert found.token == int(z.argmax())
        tokens = int(self.p.argmax()), int(stock_logits(self.stock, TEXT, [-1])[0].argmax())
        assert found.gap == pytest.approx(float(z[tokens[0]] - z[tokens[1]]), abs=1e-3)
        assert found.text == TEXTS[found.token]


# -- parts ------------------------------------------------------------------------------------


def test_parts_are_given_back_greedily_until_the_token_returns() -> None:
    case = Case("llama")
    blame = case.blame()
    whole = frozenset(case.pruned.parts)

    def read(form: frozenset[Part]) -> Tensor:
        model = case.baseline.model
        return stock_logits(stock_form(model, model, DROPPED, form), TEXT, [-1])[0]

    case.check(blame.pruned, read(whole))
    case.check(blame.baseline, case.p)
    assert blame.pruned.token != blame.baseline.token
    assert blame.baseline.kl == 0
    assert blame.floor == pytest.approx(0, abs=1e-9)
    for each in blame.parts:
        case.check(each.given_back, read(whole - {each.part}))
        case.check(each.alone, read(frozenset([each.part])))
    left, order, forms = whole, list[Part](), set[frozenset[Part]]()
    while int(read(left).argmax()) != int(case.p.argmax()):
        rest = {part: left - {part} for part in case.pruned.parts if part in left}
        forms |= {*rest.values()}
        best = min(rest, key=lambda part: float(kl(case.p, read(rest[part]))))
        left = rest[best]
        order.append(best)
        case.check(blame.cumulative.after[len(order) - 1], read(left))
    assert blame.cumulative.parts == order
    assert len(order) == len(blame.cumulative.after) >= 2
    assert blame.cumulative.forms == len(forms)


def test_forms_are_read_once_and_nothing_is_given_back_where_the_tokens_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case("llama")
    read: list[frozenset[Part]] = []
    logits = PrunedLane.logits

    def counted(self: PrunedLane, tokens: Sequence[int], forms: Any, *more: Any) -> Any:
        read.extend(forms)
        return logits(self, tokens, forms, *more)

    monkeypatch.setattr(PrunedLane, "logits", counted)
    case.blame()
    # The baseline once more, alone.
    assert sorted(map(len, read)) == sorted([0, *map(len, {*read})])
    agreeing = Case("llama", dropped=Dropped(attention=frozenset({2}))).blame()
    assert agreeing.pruned.token == agreeing.baseline.token
    assert (agreeing.cumulative.parts, agreeing.cumulative.forms) == ([], 0)


def test_logits_that_are_no_numbers_are_said() -> None:
    case = Case("llama", other_weights=True)
    case.lane.group.model.get_parameter("lm_head.weight")[3] = torch.nan
    with pytest.raises(UserError, match=r"logits of the lane .* are not numbers"):
        case.blame()
    case.baseline.model.get_parameter("lm_head.weight")[3] = torch.nan
    with pytest.raises(UserError, match=r"logits of the baseline .* are not numbers"):
        case.blame()


def test_the_floor_is_not_under_what_rounding_to_the_dtype_makes() -> None:
    """The baseline can have the same bits alone and beside others, and its logits are rounded."""
    model = moved(make_model("llama"), torch.bfloat16)
    group = WeightGroup(model, find_anatomy(model))
    lane = LaneModel(Recipe((), "lane"), group, DROPPED)
    for temperature in (1.0, 0.5):
        step = dataclasses.replace(STEP, temperature=temperature)
        floor = blame_parts(PrunedLane(group, lane), step, nothing).floor
        with torch.inference_mode():
            z = model(input_ids=torch.tensor([TEXT])).logits[0, -1]
        assert floor is not None
        assert floor >= 0.99 * rounding_kl(z, temperature) > 1e-7


# -- in the text ------------------------------------------------------------------------------


def stock_patched(case: Case, position: int) -> Tensor:
    """Logits of the last token over stock caches put together by hand."""
    caches = []
    for model in case.models:
        cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            model(input_ids=torch.tensor([TEXT[:-1]]), past_key_values=cache, use_cache=True)
        caches.append(cache)
    theirs, own = caches
    layers: list[Any] = own.layers
    for layer, other in zip(layers, theirs.layers, strict=True):
        first = max(0, position - (len(TEXT) - 1 - layer.keys.shape[-2]))
        layer.keys = torch.cat([layer.keys[:, :, :first], other.keys[:, :, first:]], dim=2)
        layer.values = torch.cat([layer.values[:, :, :first], other.values[:, :, first:]], dim=2)
    at = torch.tensor([[len(TEXT) - 1]])
    with torch.inference_mode():
        out = case.stock(
            input_ids=torch.tensor([TEXT[-1:]]),
            position_ids=at,
            past_key_values=own,
            use_cache=True,
        )
    return out.logits[0, -1].double()


@pytest.mark.parametrize(
    ("family", "other_weights", "rows"),
    [
        ("llama", False, 1),
        ("llama", True, 3),
        ("gemma3_text", False, 3),
        pytest.param("gpt_neox", True, 15, marks=pytest.mark.slow),
    ],
)
def test_positions_of_the_text_are_tried_by_bisection(
    family: str, other_weights: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_text, "ROWS", rows)
    case = Case(family, other_weights=other_weights)
    blame = case.blame()
    length = len(TEXT) - 1
    every = {at: stock_patched(case, at) for at in range(length + 1)}
    # Whatever token is taken for the baseline's, the boundary is found where there is one.
    for token in {int(z.argmax()) for z in every.values()} | {VOCABULARY - 1}:
        wanted = msgspec.structs.replace(blame.baseline, token=token)
        asked = msgspec.structs.replace(blame, baseline=wanted)
        found = where_in_text(case.baseline, case.lane, STEP, asked, nothing)
        assert found.prompt == STEP.prompt
        positions = [tried.position for tried in found.tried]
        assert positions == sorted(set(positions))
        assert {0, length} <= {*positions}
        for tried in found.tried:
            z = every[tried.position]
            assert tried.next.kl == pytest.approx(float(kl(case.p, z)), abs=1e-6)
            assert tried.next.token == int(z.argmax())
        returns = [int(every[at].argmax()) == token for at in range(length + 1)]
        if returns[length]:
            assert found.latest == length
        elif not returns[0]:
            assert found.latest is None
        else:
            assert found.latest is not None
            # A boundary; the only one where the effect is monotone.
            assert returns[found.latest]
            assert not returns[found.latest + 1]
            if sum(a != b for a, b in itertools.pairwise(returns)) == 1:
                assert found.latest == max(at for at in range(length) if returns[at])


def test_a_text_of_one_token_has_no_caches() -> None:
    case = Case("llama")
    step = dataclasses.replace(STEP, text=TEXT[:1], prompt=1)
    blame = blame_parts(case.pruned, step, nothing)
    found = where_in_text(case.baseline, case.lane, step, blame, nothing)
    (tried,) = found.tried
    assert tried.position == 0
    assert tried.next.kl == pytest.approx(blame.pruned.kl, abs=1e-6)
    depth = where_in_depth(case.baseline, case.lane, step, blame, nothing)
    for last, every in zip(depth.last, depth.every, strict=True):
        assert last is not None
        assert every is not None
        assert last.kl == pytest.approx(every.kl, abs=1e-6)


# -- in depth ---------------------------------------------------------------------------------

MIDDLES = {"llama": "post_attention_layernorm", "gpt2": "ln_2", "gpt_neox": ""}


def stock_streams(case: Case) -> list[Tensor]:
    """The baseline's stream at every point that its family has, by hooks of the test's own."""
    streams: list[Tensor] = []
    with_points(case.baseline.model, lambda _, stream: streams.append(stream.clone()))
    return streams


def with_points(model: PreTrainedModel, visit: Callable[[int, Tensor], object]) -> Tensor:
    """Logits of the last token, with a visit to the stream at each point that may change it."""
    middle = MIDDLES[model.config.model_type]
    handles, number = [], itertools.count()

    def on_input(_module: Any, args: Any, kwargs: Any) -> None:
        visit(next(number), args[0] if args else kwargs["hidden_states"])

    def on_output(_module: Any, _args: Any, output: Any) -> None:
        visit(next(number), output[0] if isinstance(output, tuple) else output)

    layers = [layer.module for layer in find_anatomy(model).layers]
    handles.append(layers[0].register_forward_pre_hook(on_input, with_kwargs=True))
    for layer in layers:
        if middle:
            between = layer.get_submodule(middle)
            handles.append(between.register_forward_pre_hook(on_input, with_kwargs=True))
        handles.append(layer.register_forward_hook(on_output))
    try:
        return stock_logits(model, TEXT, [-1])[0]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(
    ("family", "other_weights"),
    [("llama", False), ("llama", True), ("gpt2", False), ("gpt_neox", False)],
)
def test_the_baselines_stream_is_put_in_at_every_point(family: str, other_weights: bool) -> None:
    case = Case(family, other_weights=other_weights)
    blame = case.blame()
    found = where_in_depth(case.baseline, case.lane, STEP, blame, nothing)
    streams = stock_streams(case)
    last, every = ([form for form in forms if form] for forms in (found.last, found.every))
    layers = len(case.baseline.anatomy.layers)
    assert len(found.last) == len(found.every) == 2 * layers + 1
    parallel = family == "gpt_neox"
    assert [form is None for form in found.last] == [parallel and n % 2 for n in range(9)]
    for point in range(len(streams)):
        for forms, positions in ((last, slice(-1, None)), (every, slice(None))):

            def put_in(number: int, stream: Tensor, at: int = point, where: slice = positions):
                if number == at:
                    stream[:, where] = streams[at][:, where]

            case.check(forms[point], with_points(case.stock, put_in))
    if not other_weights:
        # Final norm and head are the baseline's.
        assert last[-1].kl == pytest.approx(0, abs=1e-9)
        assert every[-1].kl == pytest.approx(0, abs=1e-9)
        assert every[-1].token == blame.baseline.token


@pytest.mark.parametrize(
    "family",
    [*("llama", "gpt2", "opt", "bloom", "falcon", "mpt", "gptj", "phi"), "gemma2", "gemma3_text"],
)
def test_a_written_stream_is_what_the_model_goes_on_with(family: str) -> None:
    model = make_model(family)
    assert takes_writes(WeightGroup(model, find_anatomy(model)))


def test_a_stream_that_a_layer_does_not_go_on_with_is_found() -> None:
    model = make_model("llama")
    group = WeightGroup(model, find_anatomy(model))
    between = model.get_submodule("model.layers.2.post_attention_layernorm")
    # It reads a copy of what the MLP is added to.
    between.register_forward_pre_hook(lambda _, args: (args[0].clone(),))
    assert not takes_writes(group)
    lane = LaneModel(Recipe((), "lane"), group, DROPPED)
    blame = Case("llama").blame()
    with pytest.raises(UserError, match="residual stream of a llama model is not known"):
        where_in_depth(group, lane, STEP, blame, nothing)


def test_a_family_that_keeps_a_state_is_refused() -> None:
    model = make_model("lfm2")
    group = WeightGroup(model, find_anatomy(model))
    lane = LaneModel(Recipe((), "lane"), group, Dropped(mlp=frozenset({1})))
    blame = Case("llama").blame()
    for where in (where_in_text, where_in_depth):
        with pytest.raises(UserError, match="lfm2 model keeps more of a text than keys and values"):
            where(group, lane, STEP, blame, nothing)
