"""Export of a variant: a checkpoint for stock transformers, or a mergekit YAML."""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from ..errors import UserError, reason
from ..model.checkpoint_files import INDEX, CheckpointFiles
from ..model.dropped import Dropped
from ..model.loading_report import unwrapped
from ..model.source import ADAPTER
from .builder import LaneModel

_OUTPUT_PROJECTIONS = (
    *("o_proj", "out_proj", "dense", "c_proj"),
    *("down_proj", "dense_4h_to_h", "fc2", "fc_out", "w2"),
)
SHARD = "5GB"
_TOKENIZER_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
_NOT_COPIED = ("config.json", INDEX, ADAPTER)
_TEMPLATES = "additional_chat_templates"


def save_checkpoint(
    variant: LaneModel, baseline: Path, directory: Path, dtype: torch.dtype | None = None
) -> None:
    """Write a variant's weights, with zero output projections in dropped sublayers.

    Each tensor has the dtype of its own file, or `dtype`. config.json is that of the weights, with
    the dropped layers as LLM-Drop lists them (`drop_attn_list`, `drop_mlp_list`); the tokenizer is
    copied from the directory `baseline`. The directory is filled under a temporary name and
    renamed. The weights come first, so that a later failure does not lose them. Raises `UserError`
    if the directory exists, cannot be written, or a dropped sublayer has no output projection of a
    known name.
    """
    if directory.exists():
        raise UserError(f"{directory} exists already; name another directory")
    files = variant.group.files
    assert files is not None, "the builder makes no variant without files"
    group = variant.group.copy()
    for module in group.anatomy.sublayers(variant.dropped):
        _zero_output(module)
    # A directory of `tempfile` would be private.
    unfinished = directory.with_name(f"{directory.name}-unfinished-{secrets.token_hex(4)}")
    try:
        unfinished.mkdir(parents=True)
        try:
            _write_weights(group.model, files, dtype, unfinished)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(f"cannot write {directory}: {reason(error)}") from error
    try:
        _write_config(files, variant.dropped, dtype or files.dtype, unfinished)
        _copy_others(baseline, files.directory, unfinished)
        os.rename(unfinished, directory)
    except OSError as error:
        raise UserError(
            f"cannot finish {directory}: {reason(error)}; the weights are in {unfinished}"
        ) from error


def _write_weights(
    model: PreTrainedModel, files: CheckpointFiles, dtype: torch.dtype | None, directory: Path
) -> None:
    """Write weights under the names of the files, without wrappers' prefixes, undoing the splits
    and joins of loading."""
    state = model.state_dict()
    # Without numbers, tied weights are told by their parameter. Told by their memory, weights that
    # only lie in one storage, as fused ones do, would be copied, all of them at once.
    names = remove_tied_weights_from_state_dict(_sizes(state), model)
    weights = revert_weight_conversion(model, {name: state[name] for name in names})
    wide = {*(model._keep_in_fp32_modules_strict or ())}
    if dtype == torch.float16:
        wide.update(model._keep_in_fp32_modules or ())

    def stored(name: str) -> Tensor:
        tensor = weights[name]
        target = files.dtype_of(name) if dtype is None else dtype
        if not tensor.is_floating_point() or (dtype and not wide.isdisjoint(name.split("."))):
            target = tensor.dtype
        tensor = tensor.to("cpu", target).contiguous()
        # A view, such as one expert of many, would be written with its whole storage.
        return tensor if tensor.nbytes == tensor.untyped_storage().nbytes() else tensor.clone()

    plan = split_torch_state_dict_into_shards(_sizes(weights), max_shard_size=SHARD)
    # Cast a shard at a time: all of them would not fit beside the model.
    for file, names in plan.filename_to_tensors.items():
        shard = {unwrapped(name): stored(name) for name in names}
        save_file(shard, directory / file, metadata={"format": "pt"})
    if plan.is_sharded:
        weight_map = {unwrapped(name): file for name, file in plan.tensor_to_filename.items()}
        index = {"metadata": plan.metadata, "weight_map": weight_map}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same shapes and dtypes, each with a storage of its own, without memory."""
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in tensors.items()
    }


def _write_config(
    files: CheckpointFiles, dropped: Dropped, dtype: torch.dtype | None, directory: Path
) -> None:
    """Write the config that was read, as a library may refuse to write what it accepted, without
    the choice of an attention, which is the decoder's."""
    left_out = ("torch_dtype", "attn_implementation", "_attn_implementation")
    config = {key: value for key, value in files.config.items() if key not in left_out}
    if dtype is not None:
        config["dtype"] = str(dtype).removeprefix("torch.")
    config["drop_attn_list"], config["drop_mlp_list"] = dropped.lists
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (directory / "config.json").write_text(text, "utf-8")


def _copy_others(baseline: Path, own: Path, directory: Path) -> None:
    """Copy the baseline's tokenizer and chat templates, and the weights' own code and settings."""
    for source, patterns in (
        (baseline, _TOKENIZER_FILES),
        (own, ("generation_config.json", "*.py")),
    ):
        for pattern in patterns:
            for file in source.glob(pattern):
                if file.name not in _NOT_COPIED:
                    shutil.copyfile(file, directory / file.name)
    if (templates := baseline / _TEMPLATES).is_dir():
        shutil.copytree(templates, directory / _TEMPLATES)


def _zero_output(module: nn.Module) -> None:
    """Replace the weights of a sublayer's output projection by zeros."""
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
    plain = [(part, name) for part in owners for name, _ in part.named_parameters(recurse=False)]
    if not plain + fused:
        raise UserError(
            f"the output projection of {type(module).__name__} was not found, so its dropping "
            "cannot be written as a checkpoint"
        )
    for part, name in {*plain, *fused}:
        zeros = torch.zeros_like(part.get_parameter(name))
        setattr(part, name, nn.Parameter(zeros, requires_grad=False))


def mergekit_yaml(variant: LaneModel, model: str, dtype: torch.dtype) -> str:
    """Passthrough merge of the layers that are left. Raises `UserError` if the variant does more
    than drop whole layers, or drops all of them."""
    dropped = variant.dropped
    if dropped.attention != dropped.mlp or variant.sparsity is not None:
        raise UserError(
            f"recipe {variant.recipe} is not a drop of whole layers, which is all that a mergekit "
            "passthrough can say; use drop:block"
        )
    depth = len(variant.group.anatomy.layers)
    if len(dropped.attention) == depth:
        raise UserError(f"recipe {variant.recipe} drops every layer, and nothing is left to merge")
    lines = ["slices:"]
    begin = None
    for layer in range(depth + 1):
        stays = layer < depth and layer not in dropped.attention
        if stays and begin is None:
            begin = layer
        elif not stays and begin is not None:
            lines += [
                "  - sources:",
                f"      - model: {_quoted(model)}",
                f"        layer_range: [{begin}, {layer}]",
            ]
            begin = None
    name = str(dtype).removeprefix("torch.")
    return "\n".join([*lines, "merge_method: passthrough", f"dtype: {name}", ""])


def _quoted(text: str) -> str:
    """YAML string in single quotes."""
    return "'" + text.replace("'", "''") + "'"
