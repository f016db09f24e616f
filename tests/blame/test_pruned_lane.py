"""Forms of a lane as rows of one pass: against stock models of their own, and what they cost."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from prunetui.engine.blame.pruned_lane import Form, PrunedLane
from prunetui.engine.cpu.backend import CPU, backend_for
from prunetui.engine.errors import UserError
from prunetui.engine.model import row_memory
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.branches import Streams
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.progress import Cancelled
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..support.devices import Placement, spread
from ..support.forms import (
    blame_forms,
    kl,
    pruned_lane,
    stock_form,
    stock_logits,
    with_other_weights,
)
from ..support.models import make_model, moved, needs_kernels

TOKENS = [5, 17, 200, 31, 8, 99, 42, 7, 128, 64, 3, 77]
NEEDED = [4, 11]
DROPPED = Dropped(attention=frozenset({1, 3}), mlp=frozenset({2}))
CONFIG: dict[str, dict[str, Any]] = {
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "llama tied": {"tie_word_embeddings": True},
}


class Int8Linear(nn.Module):
    """A layer whose weight [outputs, inputs] is stored as int8 and a scale for each output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.abs().amax(dim=1, keepdim=True) / 127
        self.weight = nn.Parameter((linear.weight / scale).round().to(torch.int8), False)
        self.scale = nn.Parameter(scale, False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight * self.scale).T


def quantize(model: PreTrainedModel) -> None:
    for layer in find_anatomy(model).layers:
        for name, module in [*layer.module.named_modules()]:
            if isinstance(module, nn.Linear):
                layer.module.set_submodule(name, Int8Linear(module))


def group_of(model: PreTrainedModel) -> WeightGroup:
    return WeightGroup(model, find_anatomy(model))


def read(lane: PrunedLane, forms: Sequence[Form]) -> list[Tensor]:
    return [*lane.logits(TOKENS, forms, NEEDED, lambda _: None)]


FAST = [("llama", False)] + [
    (name, True) for name in ("llama tied", "gpt2", "gemma3_text", "gpt_neox", "mixtral")
]
SLOW = [(name, False) for name in ("gpt2", "gemma3_text", "gpt_neox", "mixtral")] + [
    (name, True)
    for name in ("llama quantized", "qwen3", "opt", "bloom", "falcon", "gpt_oss", "lfm2")
]


@pytest.mark.parametrize(
    ("name", "other_weights"),
    [*FAST, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)],
)
def test_each_form_is_a_stock_model_of_its_own(name: str, other_weights: bool) -> None:
    model = make_model(name.split()[0], **CONFIG.get(name, {}))
    variant = with_other_weights(model) if other_weights else model
    if "quantized" in name:
        quantize(model)
        quantize(variant)
    lane = pruned_lane(group_of(model), variant if other_weights else None, DROPPED)
    assert len(lane.parts) == (9 if other_weights else 3)
    # BLOOM's bias of attention has a row of each row that is fed.
    assert {reader.shares_layers for reader in lane.readers} == {name != "bloom"}
    before = [stock_logits(each, TOKENS, NEEDED) for each in (model, variant)]
    forms = blame_forms(lane)
    for form, z in zip(forms, read(lane, forms), strict=True):
        stock = stock_logits(stock_form(model, variant, DROPPED, form), TOKENS, NEEDED)
        assert kl(stock, z).abs().max() <= 1e-6
        assert torch.equal(stock.argmax(-1), z.argmax(-1))
    # Nothing stays installed.
    after = [stock_logits(each, TOKENS, NEEDED) for each in (model, variant)]
    assert all(map(torch.equal, before, after))


@pytest.mark.user_cache
@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forms_are_read_of_weights_that_are_prepared_to_decode(dtype: torch.dtype) -> None:
    # Weights of bfloat16 in float32, which are kept packed.
    model = moved(moved(make_model("llama", hidden_size=64), torch.bfloat16), dtype)
    variant = moved(moved(with_other_weights(model), torch.bfloat16), dtype)
    forms = blame_forms(pruned_lane(group_of(model), variant, DROPPED))
    expected = [
        stock_logits(stock_form(model, variant, DROPPED, form), TOKENS, NEEDED) for form in forms
    ]
    groups = group_of(model), group_of(variant)
    backend = backend_for(CPU, dtype)
    assert backend
    prepared = backend.prepare({group.model: 3 for group in groups})
    prepared.install()
    try:
        packed = [x for x in model.parameters() if not x.numel()]
        assert bool(packed) == (dtype == torch.float32)
        lane = pruned_lane(groups[0], variant, DROPPED)
        assert {reader.shares_layers for reader in lane.readers} == {True}
        found = read(lane, forms)
    finally:
        prepared.remove()
    tolerance = 1e-6 if dtype == torch.float32 else 0.01
    for z, stock in zip(found, expected, strict=True):
        assert kl(stock, z).abs().max() <= tolerance


@pytest.mark.parametrize("family", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_forms_of_a_spread_model_are_those_of_a_whole_one(family: str) -> None:
    found = []
    for spread_out in (False, True):
        with Placement() if spread_out else nullcontext():
            model = make_model(family)
            variant = with_other_weights(model)
            if spread_out:
                spread(model)
                spread(variant)
            lane = pruned_lane(group_of(model), variant, DROPPED)
            found.append([z.cpu() for z in read(lane, blame_forms(lane))])
    assert max(kl(*pair).abs().max() for pair in zip(*found, strict=True)) <= 1e-6


class SharedValues:
    """Hooks by which a layer also adds what another one returned, as where values are reused."""

    def __init__(self, model: PreTrainedModel) -> None:
        first, *_, last = (layer.module for layer in find_anatomy(model).layers)
        first.register_forward_hook(self.keep)
        last.register_forward_hook(self.add)

    def keep(self, _module: nn.Module, _args: object, output: Tensor) -> None:
        self.kept = output

    def add(self, _module: nn.Module, _args: object, output: Tensor) -> Tensor:
        return output + self.kept


def test_rows_share_no_layers_where_a_layer_reads_more_than_the_stream() -> None:
    model = make_model("llama")
    group = group_of(model)
    SharedValues(model)
    lane = pruned_lane(group, None, DROPPED)
    assert not lane.readers[0].shares_layers
    forms = blame_forms(lane)
    for form, z in zip(forms, read(lane, forms), strict=True):
        (alone,) = read(lane, [form])
        assert kl(alone, z).abs().max() <= 1e-6


def test_a_variant_of_another_config_is_refused() -> None:
    """What its weights do not tell, such as a scale that no module shows, the logits do."""
    model = make_model("granite")
    variant = make_model("granite")
    variant.model.embedding_multiplier = 3.0  # pyright: ignore[reportAttributeAccessIssue]
    variant.get_parameter("model.layers.1.mlp.up_proj.weight").add_(0.1)
    with pytest.raises(UserError, match="is not built as the baseline is"):
        pruned_lane(group_of(model), variant, Dropped())


def test_streams_branch_where_rows_first_differ() -> None:
    kinds = ["aabb", "aabc", "aabb", "adbb"]
    streams = Streams(kinds, shared=True)
    assert streams.first_rows == [[0], [0, 3], [0, 3], [0, 1, 3]]
    assert streams.parents == [[0], [0, 0], [0, 1], [0, 0, 1]]
    assert streams.of_row == [0, 1, 0, 2]
    assert (streams.fed, streams.work) == (1, 8)
    apart = Streams(kinds, shared=False)
    assert (apart.fed, apart.work, apart.of_row) == (4, 16, [0, 1, 2, 3])


def test_progress_is_of_all_forms_and_cancelling_leaves_nothing() -> None:
    model = make_model("llama")
    lane = pruned_lane(group_of(model), with_other_weights(model), DROPPED)
    forms = blame_forms(lane)
    fractions: list[float] = []
    expected = [*lane.logits(TOKENS, forms, NEEDED, fractions.append)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    # Each of the 4 batches, one of either model and of either `outside`, has 4 layers.
    assert len(fractions) == 16

    def cancel(fraction: float) -> None:
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        list(lane.logits(TOKENS, forms, NEEDED, cancel))
    assert all(map(torch.equal, read(lane, forms), expected))


def test_what_nobody_takes_is_not_computed(monkeypatch) -> None:
    monkeypatch.setattr(row_memory, "USEFUL_POSITIONS", 2 * len(TOKENS))
    model = make_model("llama")
    lane = pruned_lane(group_of(model), None, DROPPED)
    forms = blame_forms(lane)
    need = lane.need(forms, len(TOKENS), len(NEEDED))
    assert (need.forms, need.at_once) == (8, 2)
    assert str(need) == f"8 forms of 12 tokens, 2 at a time, in up to {need.bytes / 1e6:.0f} MB"
    assert lane.readers[0].shares_layers
    runs: list[int] = []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    reading = lane.logits(TOKENS, forms, NEEDED, lambda _: None)
    assert not runs
    for _ in range(3):
        next(reading)
    assert len(runs) == 2


def _count_live(lane: PrunedLane, positions: int, rows: int) -> int:
    """Bytes that live at most while rows without a common layer are read."""
    tokens = [1 + number % 200 for number in range(positions)]
    forms = [frozenset({part}) for part in lane.parts][:rows]
    with row_memory.LiveBytes() as live:
        list(lane.logits(tokens, forms, range(positions), lambda _: None))
    return live.peak


@pytest.mark.parametrize("family", ["llama", "gemma2", "bloom", "mixtral"])
def test_the_memory_that_is_said_is_the_memory_that_is_taken(family: str, monkeypatch) -> None:
    monkeypatch.setattr(row_memory, "USEFUL_POSITIONS", 10**6)
    lane = pruned_lane(group_of(make_model(family)), None, Dropped(frozenset(range(3))))
    monkeypatch.setattr(lane.readers[0], "shares_layers", False)
    memory = lane.readers[0].memory(200, 200)
    taken = _count_live(lane, 200, 3)
    assert memory.rows_at_once(3) == 3
    assert taken <= 3 * memory.row + memory.beside <= 2.5 * taken


def test_a_text_too_long_is_a_sentence_that_says_what_fits(monkeypatch) -> None:
    lane = pruned_lane(group_of(make_model("llama")), None, DROPPED)
    forms = blame_forms(lane)
    need = lane.need(forms, 200, 1)
    one = lane.readers[0].memory(200, 1)
    monkeypatch.setattr(row_memory, "available_memory", lambda: 2 * int(3.5 * one.row + one.beside))
    assert lane.need(forms, 200, 1).at_once == 3
    assert need.at_once == 8
    monkeypatch.setattr(row_memory, "available_memory", lambda: 2 * int(one.row / 4 + one.beside))
    with pytest.raises(
        UserError,
        match=r"^there is no memory to read a text of 200 tokens: it takes 0 MB, and 0 MB are "
        r"free; a text of (\d+) tokens would fit$",
    ) as refused:
        lane.need(forms, 200, 1)
    longest = int(str(refused.value).split()[-4])
    assert lane.need(forms, longest, 1).at_once >= 1
    with pytest.raises(UserError, match="there is no memory"):
        lane.need(forms, longest + 1, 1)
    with pytest.raises(UserError, match="there is no memory"):
        next(lane.logits([1] * 200, forms, [199], lambda _: None))


def test_rows_that_memory_has_no_room_for_are_read_in_parts() -> None:
    model = make_model("llama")
    lane = pruned_lane(group_of(model), None, DROPPED)
    forms = blame_forms(lane)
    expected = read(lane, forms)
    room = [3]

    def fill(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if len(args[0]) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model.get_submodule("model.norm").register_forward_pre_hook(fill)
    fractions: list[float] = []
    found = [*lane.logits(TOKENS, forms, NEEDED, fractions.append)]
    assert max(kl(*pair).abs().max() for pair in zip(expected, found, strict=True)) <= 1e-6
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    room[0] = 0
    with pytest.raises(UserError, match=r"no memory to read a text of 12 tokens.* 6 tokens would"):
        read(lane, forms)
    room[0] = 9
    assert all(map(torch.equal, read(lane, forms), expected))
