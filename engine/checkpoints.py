"""A variant as a checkpoint that stock transformers loads."""

import os
import secrets
import shutil
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .errors import UserError, reason
from .variants import Variant

_OUTPUT_PROJECTIONS = (
    *("o_proj", "out_proj", "dense", "c_proj"),
    *("down_proj", "dense_4h_to_h", "fc2", "fc_out", "w2"),
)


def save_checkpoint(
    variant: Variant,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the variant's weights, in `dtype` or their own, the output projections of dropped
    sublayers zeroed.

    config.json lists the dropped layers as LLM-Drop does (`drop_attn_list`, `drop_mlp_list`). The
    directory is filled under a temporary name and renamed. Raises `UserError` if it exists, cannot
    be written, or a dropped sublayer has no output projection of a known name.
    """
    if directory.exists():
        raise UserError(f"{directory} exists already; name another directory")
    group = variant.group.copy()
    for module in group.anatomy.sublayers(variant.gates.attention, variant.gates.mlp):
        _zero_output(module)
    if dtype is not None:
        _cast(group.model, dtype)
    config = group.model.config
    config.drop_attn_list = sorted(variant.gates.attention)
    config.drop_mlp_list = sorted(variant.gates.mlp)
    try:
        # A directory of `tempfile` would be closed to others.
        unfinished = directory.with_name(f"{directory.name}-unfinished-{secrets.token_hex(4)}")
        unfinished.mkdir(parents=True)
        try:
            group.model.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)
            os.rename(unfinished, directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write {directory}: {reason(error)}") from error


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """All but what transformers keeps in float32. Not by `to`: the parameters are other models'
    too."""
    kept = {*(model._keep_in_fp32_modules_strict or ())}
    if dtype == torch.float16:
        kept.update(model._keep_in_fp32_modules or ())
    cast: dict[nn.Parameter, nn.Parameter] = {}
    for path, parameter in [*model.named_parameters(remove_duplicate=False)]:
        if parameter.is_floating_point() and kept.isdisjoint(path.split(".")):
            if parameter not in cast:
                cast[parameter] = nn.Parameter(parameter.to(dtype), requires_grad=False)
            owner, _, name = path.rpartition(".")
            setattr(model.get_submodule(owner), name, cast[parameter])


def _zero_output(module: nn.Module) -> None:
    """Give a sublayer's last projection weights of its own, all zero."""
    owners = [
        part
        for name, part in module.named_modules()
        if name.rpartition(".")[2] in _OUTPUT_PROJECTIONS
        or (not name and isinstance(part, nn.Linear))
    ]
    fused = [
        (part, name)
        for part in module.modules()
        for name, _ in part.named_parameters(recurse=False)
        if name.removesuffix("_bias") in _OUTPUT_PROJECTIONS
    ]
    places = [(part, name) for part in owners for name, _ in part.named_parameters(recurse=False)]
    if not places + fused:
        raise UserError(
            f"the output projection of {type(module).__name__} was not found, so its dropping "
            "cannot be written as a checkpoint"
        )
    for part, name in {*places, *fused}:
        zeros = torch.zeros_like(part.get_parameter(name))
        setattr(part, name, nn.Parameter(zeros, requires_grad=False))


def mergekit_yaml(variant: Variant, model: str, dtype: torch.dtype) -> str:
    """A passthrough merge of the layers that are left. Raises `UserError` unless all that the
    variant does is to drop whole layers, and not all of them."""
    gates = variant.gates
    if gates.attention != gates.mlp or variant.sparsity is not None:
        raise UserError(
            f"recipe {variant.recipe} is not a drop of whole layers, which is all that a mergekit "
            "passthrough can say; use drop:block"
        )
    depth = len(variant.group.anatomy.layers)
    if len(gates.attention) == depth:
        raise UserError(f"recipe {variant.recipe} drops every layer, and nothing is left to merge")
    lines = ["slices:"]
    begin = None
    for layer in range(depth + 1):
        kept = layer < depth and layer not in gates.attention
        if kept and begin is None:
            begin = layer
        elif not kept and begin is not None:
            lines += [
                "  - sources:",
                f"      - model: {_quoted(model)}",
                f"        layer_range: [{begin}, {layer}]",
            ]
            begin = None
    name = str(dtype).removeprefix("torch.")
    return "\n".join([*lines, "merge_method: passthrough", f"dtype: {name}", ""])


def _quoted(text: str) -> str:
    """As a YAML string in single quotes."""
    return "'" + text.replace("'", "''") + "'"
