"""Stock models of single forms of a pruned lane: what each row of a batch must give."""

import copy
import re
from typing import Any

import torch
from prunetui.engine.blame.pruned_lane import Form, PrunedLane
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import SUBLAYERS, Dropped, Sublayer
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.trace.blame import Part
from prunetui.engine.variants.builder import LaneModel
from prunetui.engine.variants.recipes import Recipe
from torch import Tensor
from transformers import PreTrainedModel

PARTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "llama": (("input_layernorm", "self_attn"), "self_attn.o_proj", "mlp.down_proj"),
    "qwen3": (("input_layernorm", "self_attn"), "self_attn.o_proj", "mlp.down_proj"),
    "gemma3_text": (
        ("input_layernorm", "self_attn", "post_attention_layernorm"),
        *("self_attn.o_proj", "mlp.down_proj"),
    ),
    "gpt2": (("ln_1", "attn"), "attn.c_proj", "mlp.c_proj"),
    "gpt_neox": (("input_layernorm", "attention"), "attention.dense", "mlp.dense_4h_to_h"),
    "opt": (("self_attn_layer_norm", "self_attn"), "self_attn.out_proj", "fc2"),
    "bloom": (("input_layernorm", "self_attention"), "self_attention.dense", "mlp.dense_4h_to_h"),
    "falcon": (
        ("input_layernorm", "ln_attn", "self_attention"),
        *("self_attention.dense", "mlp.dense_4h_to_h"),
    ),
    "lfm2": (
        ("operator_norm", "self_attn", "conv"),
        *("(self_attn|conv).out_proj", "feed_forward.w2"),
    ),
    "mixtral": (("input_layernorm", "self_attn"), "self_attn.o_proj", "mlp.experts.down_proj"),
    "gpt_oss": (("input_layernorm", "self_attn"), "self_attn.o_proj", "mlp.experts.down_proj"),
}
"""By family: the children of a layer that are its attention, norms included, and the output
projections of attention and MLP."""


def part_of(family: str, name: str) -> Part:
    """The part that a parameter of this name belongs to."""
    inside = re.search(r"\.(\d+)\.(\w+)", name)
    if inside is None:
        return Part(sublayer="outside")
    sublayer: Sublayer = "attention" if inside[2] in PARTS[family][0] else "mlp"
    return Part(sublayer=sublayer, layer=int(inside[1]))


def stock_form(
    baseline: PreTrainedModel, variant: PreTrainedModel, dropped: Dropped, form: Form
) -> PreTrainedModel:
    """A model of its own with the variant's parameters in the parts of the form, and zeros in the
    output projections of those that the form drops."""
    family = baseline.config.model_type
    model = copy.deepcopy(baseline)
    other = dict(variant.named_parameters(remove_duplicate=False))
    _, *projections = PARTS[family]
    for name, parameter in model.named_parameters(remove_duplicate=False):
        part = part_of(family, name)
        if part in form:
            parameter.data.copy_(other[name].data)
        for sublayer, projection in zip(SUBLAYERS, projections, strict=True):
            if part in form and part.layer in dropped.of(sublayer):
                own = re.search(rf"\.{part.layer}\.{projection}(\.|_|$)", name)
                if own and part.sublayer == sublayer:
                    parameter.data.zero_()
    return model


def stock_logits(model: Any, tokens: list[int], needed: list[int]) -> Tensor:
    """float64 [needed, vocabulary] of one text, read alone."""
    with torch.inference_mode():
        inputs = torch.tensor([tokens], device=model.device)
        return model(input_ids=inputs, use_cache=False).logits[0, needed].double()


def with_other_weights(model: PreTrainedModel, scale: float = 0.1) -> PreTrainedModel:
    """A copy in which every parameter is another, norms, biases and embeddings too; tied ones stay
    tied."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    for parameter in other.parameters():
        noise = torch.randn(parameter.shape, generator=generator) * scale
        parameter.data += noise.to(parameter.device, parameter.dtype)
    return other


def pruned_lane(
    baseline: WeightGroup, variant: PreTrainedModel | None, dropped: Dropped
) -> PrunedLane:
    """A lane that drops sublayers, and has the weights of another model if there is one."""
    group = WeightGroup(variant, find_anatomy(variant), "variant") if variant else baseline
    return PrunedLane(baseline, LaneModel(Recipe((), "lane"), group, dropped))


def blame_forms(lane: PrunedLane) -> list[Form]:
    """The lane, with each part given back, the baseline, and with each part pruned alone."""
    whole, none = frozenset(lane.parts), frozenset[Part]()
    return [
        *(whole, *(whole - {part} for part in lane.parts)),
        *(none, *(none | {part} for part in lane.parts)),
    ]


def kl(z: Tensor, other: Tensor) -> Tensor:
    """KL(p‖q) in nats, in float64, of each row of logits."""
    p, q = z.double().log_softmax(-1), other.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)
