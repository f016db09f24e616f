"""Gates, streams and the lockstep decoder against plain forward passes of one row."""

from functools import partial
from typing import Any

import pytest
import torch
from prunetui.engine.decode.kv_cache import new_cache
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.errors import UserError
from prunetui.engine.measure.logit_lens import check_lens
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import SUBLAYERS, Dropped
from prunetui.engine.model.residual_stream import StreamHooks
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.variants.builder import check_droppable
from prunetui.engine.variants.pruning.importance import measure_similarity
from torch import Tensor, nn
from transformers import DynamicCache, GPT2Config, GPT2Model, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from ..support.families import make_family
from ..support.lockstep import install_lockstep
from ..support.models import FAMILIES, make_model, without_sublayers
from ..support.steps import present

PROMPT = [5, 17, 200, 31, 8, 99, 4, 120, 77, 3, 64, 180]
EVERY_FAMILY = pytest.mark.parametrize("family", sorted(FAMILIES))


def make_lockstep(model: PreTrainedModel, lanes: list[Dropped]) -> Lockstep:
    group = WeightGroup(model, find_anatomy(model))
    return install_lockstep([(group, gates) for gates in lanes])


@torch.inference_mode()
def solo(model: PreTrainedModel, tokens: list[int]) -> Tensor:
    """Logits, [vocabulary], after tokens that are read at once without a cache."""
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]


@EVERY_FAMILY
def test_closed_gates_make_every_layer_the_identity(family: str) -> None:
    anatomy = find_anatomy(make_model(family))
    assert anatomy.droppable
    assert anatomy.norm is not None
    assert len(anatomy.layers) == 4


@EVERY_FAMILY
def test_a_lane_equals_the_model_without_the_sublayers(family: str) -> None:
    model = make_model(family)
    anatomy = find_anatomy(model)
    lanes = [
        Dropped(),
        Dropped(attention=frozenset({0})),
        Dropped(mlp=frozenset({0, 2})),
        Dropped(attention=frozenset({1, 3}), mlp=frozenset({3})),
    ]
    lockstep = make_lockstep(model, lanes)
    outputs = lockstep.prefill(torch.tensor(PROMPT).repeat(len(lanes), 1))
    texts = [list(PROMPT) for _ in lanes]
    logits = []
    for _ in range(6):
        logits.append(outputs.z.clone())
        tokens = outputs.z.argmax(dim=-1)
        for text, token in zip(texts, tokens.tolist(), strict=True):
            text.append(token)
        outputs = lockstep.advance(tokens[:, None])
    lockstep.remove()
    for row, gates in enumerate(lanes):
        with without_sublayers(anatomy, gates):
            for step, z in enumerate(logits):
                alone = solo(model, texts[row][: len(PROMPT) + step])
                torch.testing.assert_close(z[row], alone, rtol=1e-4, atol=1e-4)
                assert texts[row][len(PROMPT) + step] == alone.argmax().item()
    assert len({tuple(text) for text in texts}) > 1


@EVERY_FAMILY
def test_streams_are_what_the_hidden_states_are(family: str) -> None:
    """After each MLP the stream is the layer's output, and the last one makes h and z."""
    model = make_model(family)
    anatomy = find_anatomy(model)
    lockstep = make_lockstep(model, [Dropped(), Dropped(mlp=frozenset({1}))])
    outputs = lockstep.prefill(torch.tensor(PROMPT).repeat(2, 1))
    lockstep.remove()
    seen = []
    handles = [
        layer.module.register_forward_hook(
            lambda _m, _a, out: seen.append((out[0] if isinstance(out, tuple) else out)[0, -1])
        )
        for layer in anatomy.layers
    ]
    z = solo(model, PROMPT)
    for handle in handles:
        handle.remove()
    for layer, hidden in enumerate(seen):
        torch.testing.assert_close(outputs.streams[2 * layer + 2, 0], hidden, rtol=1e-4, atol=1e-4)
    assert anatomy.norm is not None
    torch.testing.assert_close(anatomy.norm(outputs.streams[-1]), outputs.h, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.z[0], z, rtol=1e-4, atol=1e-4)
    # The dropped MLP leaves the stream as it was.
    assert torch.equal(outputs.streams[4, 1], outputs.streams[3, 1])
    assert not torch.equal(outputs.streams[4, 0], outputs.streams[3, 0])


def test_h_is_the_vector_for_which_z_is_w_h() -> None:
    model = make_model("llama")
    lockstep = make_lockstep(model, [Dropped()])
    outputs = lockstep.prefill(torch.tensor([PROMPT]))
    lockstep.remove()
    torch.testing.assert_close(outputs.h @ model.lm_head.weight.T, outputs.z)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_closing_leaves_the_model_as_it_was(family: str) -> None:
    model = make_model(family)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    before = solo(model, PROMPT)
    lockstep = make_lockstep(model, [Dropped(frozenset({0}))])
    lockstep.remove()
    assert all(torch.equal(weights[name], now) for name, now in model.state_dict().items())
    assert torch.equal(solo(model, PROMPT), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_an_overflow_in_a_dropped_sublayer_does_not_reach_the_lane() -> None:
    model = make_model("llama")
    anatomy = find_anatomy(model)
    lane = Dropped(mlp=frozenset({1}))
    with without_sublayers(anatomy, lane):
        expected = solo(model, PROMPT)
    model.model.layers[1].mlp.down_proj.weight.data.fill_(torch.inf)
    lockstep = make_lockstep(model, [lane])
    outputs = lockstep.prefill(torch.tensor([PROMPT]))
    torch.testing.assert_close(outputs.z[0], expected, rtol=1e-4, atol=1e-4)


def test_a_prompt_longer_than_a_chunk_is_read_as_if_at_once(monkeypatch) -> None:
    model = make_model("llama")
    monkeypatch.setattr("prunetui.engine.decode.lockstep.PREFILL_CHUNK", 5)
    lockstep = make_lockstep(model, [Dropped()])
    outputs = lockstep.prefill(torch.tensor([PROMPT]))
    assert lockstep.length == len(PROMPT)
    torch.testing.assert_close(outputs.z[0], solo(model, PROMPT), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "croppable"), [("llama", True), ("gemma2", False)])
def test_cropping_forgets_or_says_that_it_cannot(family: str, croppable: bool) -> None:
    """gemma2's window of 8 has forgotten what a crop of 12 positions to 10 would need."""
    model = make_model(family)
    lockstep = make_lockstep(model, [Dropped()])
    before = lockstep.prefill(torch.tensor([PROMPT])).z.clone()
    assert lockstep.crop(len(PROMPT)) is True
    assert lockstep.crop(10) is croppable
    assert lockstep.length == (10 if croppable else 12)
    if croppable:
        again = lockstep.advance(torch.tensor([PROMPT[10:]]))
        torch.testing.assert_close(again.z, before, rtol=1e-4, atol=1e-4)


def test_a_model_whose_layers_are_not_found_is_refused() -> None:
    headless = GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=10))
    with pytest.raises(UserError, match="no language model head"):
        find_anatomy(headless)


@pytest.mark.parametrize("family", ["gemma3", "got_ocr2", "moss_transcribe_diarize"])
def test_the_layers_are_those_that_read_text(family: str) -> None:
    """Vision and audio towers of these models have as many layers."""
    model = make_family(family)
    depth = model.config.get_text_config().num_hidden_layers
    towers = [
        module
        for name, module in model.named_modules()
        if "tower" in name and isinstance(module, nn.ModuleList)
    ]
    assert depth in [len(tower) for tower in towers]
    layers = [layer.module for layer in find_anatomy(model).layers]
    decoder = present(model.get_decoder())
    assert layers == [*decoder.get_submodule("layers").children()]


def test_layers_without_a_known_pair_are_found_but_take_no_dropping() -> None:
    model = make_model("llama")
    for layer in model.model.layers:
        layer.mixer = layer.self_attn
        layer.forward = partial(_with_mixer, layer)
        del layer.self_attn
    group = WeightGroup(model, find_anatomy(model))
    assert [layer.attention for layer in group.anatomy.layers] == [()] * 4
    with pytest.raises(UserError, match="layer 0 has no pair of attention and MLP"):
        check_droppable(group)


def _with_mixer(layer: Any, hidden_states: Tensor, **kwargs) -> Tensor:
    mixed, _ = layer.mixer(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
    middle = hidden_states + mixed
    return middle + layer.mlp(layer.post_attention_layernorm(middle))


def test_a_sum_of_two_modules_is_one_sublayer() -> None:
    """Experts and what every token passes, attention and a recurrence beside it."""
    layer = find_anatomy(make_family("granitemoehybrid")).layers[0]
    assert layer.mlp == (layer.module.block_sparse_moe, layer.module.shared_mlp)
    layer = find_anatomy(make_family("falcon_h1")).layers[0]
    assert layer.attention == (layer.module.self_attn, layer.module.mamba)


@pytest.mark.parametrize("family", ["mamba", "deepseek_v4", "gemma3n_text", "reformer"])
def test_a_point_that_is_not_known_is_no_number(family: str) -> None:
    model = make_family(family)
    anatomy = find_anatomy(model)
    assert not anatomy.has_known_stream
    lockstep = make_lockstep(model, [Dropped()] * 2)
    streams = lockstep.prefill(torch.tensor(PROMPT).repeat(2, 1)).streams
    lockstep.remove()
    assert len(streams) == 9
    assert streams[1::2].isnan().all()
    assert streams[::2].isnan().any() != anatomy.one_stream
    with pytest.raises(UserError, match="cannot be ranked; name the layers"):
        measure_similarity(model, anatomy, [torch.tensor(PROMPT)], lambda _: None)
    with pytest.raises(UserError, match="cannot be read through a logit lens"):
        check_lens(WeightGroup(model, anatomy))


def test_layers_that_norm_the_sum_are_not_droppable() -> None:
    """OPT-350m norms after adding: with closed gates its layers are not the identity."""
    assert not find_anatomy(make_model("opt", do_layer_norm_before=False)).droppable


@EVERY_FAMILY
def test_similarity_is_the_mean_cosine_before_and_after(family: str) -> None:
    model = make_model(family)
    anatomy = find_anatomy(model)
    windows = [torch.tensor(PROMPT[:7]), torch.tensor(PROMPT)]
    progress: list[float] = []
    similarity = measure_similarity(model, anatomy, windows, progress.append)
    assert progress == [(window + point / 8) / 2 for window in range(2) for point in range(9)]
    cosines: dict[tuple[int, int], list[Tensor]] = {}
    runs: dict[tuple[int, int], list[Tensor]] = {}
    points: dict[int, Tensor] = {}
    hooks = StreamHooks(anatomy, lambda point, stream: points.update({point: stream[0].double()}))
    hooks.install()
    for window in windows:
        with torch.inference_mode():
            model(input_ids=window[None], use_cache=False)
        for layer in range(4):
            for place in (1, 2):
                before, after = points[2 * layer + place - 1], points[2 * layer + place]
                cosines.setdefault((layer, place), []).append(cosine(before, after))
            for last in range(layer, 4):
                # A run of n layers from layer i on compares the inputs of i and of i + n.
                run = cosine(points[2 * layer], points[2 * last + 2])
                runs.setdefault((last - layer + 1, layer), []).append(run)
    hooks.remove()
    for layer in range(4):
        for place, kind in enumerate(SUBLAYERS, start=1):
            mean = torch.cat(cosines[layer, place]).mean().item()
            assert similarity.of(kind)[layer] == pytest.approx(mean, abs=1e-6)
    assert [len(row) for row in similarity.runs] == [4, 3, 2, 1]
    for (size, first), found in runs.items():
        mean = torch.cat(found).mean().item()
        assert similarity.runs[size - 1][first] == pytest.approx(mean, abs=1e-6)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))


def keys_and_values(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    pairs = []
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        pairs.append((present(layer.keys), present(layer.values)))
    return pairs


def test_a_cache_grows_in_place_and_holds_what_the_stock_one_holds() -> None:
    model = make_model("llama")
    stock, roomy = DynamicCache(config=model.config), new_cache(model)
    text = torch.randint(1, 257, (2, 300), generator=torch.Generator().manual_seed(0))
    addresses = set()
    with torch.inference_mode():
        for piece in text.split([120, 1, 1, 100, 1, 77], dim=1):
            outputs = [
                model(input_ids=piece, past_key_values=cache, use_cache=True).logits
                for cache in (stock, roomy)
            ]
            assert torch.equal(*outputs)
            addresses.add(keys_and_values(roomy)[0][0].data_ptr())
    for ours, theirs in zip(keys_and_values(roomy), keys_and_values(stock), strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    # Room for 256 positions, then for 600: it moved once.
    assert len(addresses) == 2


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_gate_changes_no_bit_of_other_rows_in_a_static_step(family: str) -> None:
    model = make_model(family).bfloat16()
    group = WeightGroup(model, find_anatomy(model))
    everything = Dropped(frozenset(range(4)), frozenset(range(4)))
    rows = []
    for last in (Dropped(), everything):
        lockstep = Lockstep([(group, Dropped()), (group, last)], static=True)
        lockstep.install()
        lockstep.prefill(torch.tensor(PROMPT).repeat(2, 1), 4)
        rows.append(lockstep.advance(torch.tensor([[9], [9]])))
        lockstep.remove()
    open_gates, closed = rows
    assert torch.equal(closed.streams[:, 0], open_gates.streams[:, 0])
    assert torch.equal(closed.streams[-1, 1], closed.streams[0, 1])
