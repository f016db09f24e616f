"""A transformers model of a checkpoint's files: its config, its dtype and its weights."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..errors import UserError
from ..foreign import foreign_code, message
from ..options import Options
from ..out_of_memory import guard_memory
from .checkpoint_files import CheckpointFiles
from .device import Placement, gpu_indices
from .device_memory import TooBigError, lack_of_memory
from .loading_report import check_report, unwrapped_names

log = logging.getLogger(__name__)


def read_config(files: CheckpointFiles, name: str, *, trust: bool) -> PreTrainedConfig:
    """The config as transformers reads it, without settings that change the form of the outputs.

    `trust` runs the Python code that the model brings. Raises `UserError` for a config that
    cannot be used.
    """
    kinds, depth = files.config.get("layer_types"), files.config.get("num_hidden_layers")
    remedy = "name a causal language model of a kind that this transformers knows"
    if files.config.get("auto_map") and not trust:
        remedy = "--trust-remote-code runs the Python code that it brings"
    elif isinstance(kinds, list) and isinstance(depth, int) and len(kinds) != depth:
        remedy = "remove the entries of the layers that were dropped from layer_types"
    with foreign_code(f"the config.json of {name} cannot be used", remedy):
        config = AutoConfig.from_pretrained(files.directory, trust_remote_code=trust)
        text = config.get_text_config()
        # Some kinds of models do not count their layers.
        depth = getattr(text, "num_hidden_layers", 1)
        if not isinstance(depth, int) or depth < 1:
            raise UserError(f"config.json of {name} says {depth!r} layers; there must be one")
        for part in (config, text):
            part.output_hidden_states = part.output_attentions = False
            part.return_dict = True
    return config


def read_model(
    files: CheckpointFiles,
    config: PreTrainedConfig,
    name: str,
    *,
    device: torch.device,
    placement: Placement,
    dtype: torch.dtype | None,
    trust: bool,
    may_be_missing: Callable[[str], bool] = lambda _: False,
) -> tuple[PreTrainedModel, list[str], set[str]]:
    """The model in `dtype`, for None in that of its config; notes on its weights; the names of the
    weights that the files lack.

    `may_be_missing` says of a weight's name whether the files may lack it. Raises `UserError` for a
    kind of model that writes no text, files that do not fit it, and one that does not fit into
    memory.
    """
    own_code = trust and files.config.get("auto_map")
    if not own_code and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{name} is of the kind {config.model_type}, of which transformers has no causal "
            "language model; name one that writes text"
        )
    renamings, notes = unwrapped_names(files, name)
    arguments: dict[str, Any] = {
        "config": config,
        "dtype": dtype or "auto",
        "use_safetensors": True,
        "trust_remote_code": trust,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
        "key_mapping": renamings or None,
    }
    if placement is not None:
        arguments["device_map"] = placement
    too_big = lack_of_memory(name, files, dtype, gpu_indices(device, placement))
    with guard_memory(too_big, TooBigError), foreign_code(f"{name} cannot be loaded"):
        model, report = _from_pretrained(files, arguments, name, notes)
    # accelerate copies what it leaves to the CPU or a disk to a GPU at every step.
    if device.type == "cuda" and {"cpu", "disk"} & {*getattr(model, "hf_device_map", {}).values()}:
        raise TooBigError(too_big())
    notes += [*files.notes, *check_report(report, files, name, may_be_missing)]
    return model.eval().requires_grad_(False), notes, {*report["missing_keys"]}


def _from_pretrained(
    files: CheckpointFiles, arguments: dict[str, Any], name: str, notes: list[str]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model and its loading report; with sdpa, and a note, if its own attention fails."""
    attention = arguments["config"]._attn_implementation
    load: Any = AutoModelForCausalLM.from_pretrained
    try:
        return load(files.directory, **arguments)
    except (ImportError, ValueError) as error:
        # Anything else that is wrong would be wrong again.
        if attention in (None, "sdpa", "eager"):
            raise
        log.warning("loading %s with %s", name, attention, exc_info=error)
        reason = message(error)
    # Outside of the handler: the error would keep what is loaded already.
    loaded = load(files.directory, **arguments, attn_implementation="sdpa")
    notes.append(
        f"config.json of {name} asks for the attention {attention}, which cannot be used here "
        f"({reason}); it runs with sdpa."
    )
    return loaded


def dtype_to_load(
    options: Options, device: torch.device, files: CheckpointFiles, *, dequantized: bool
) -> torch.dtype | None:
    """The dtype that the options name; for auto float32 on a CPU, elsewhere that of the files.

    Weights of a GGUF file have been `dequantized` to float32, which says nothing about them: on a
    CUDA device they take 16 bits.
    """
    if options.dtype != "auto":
        return getattr(torch, options.dtype)
    if device.type == "cpu":
        return torch.float32
    if dequantized and device.type == "cuda":
        # Older cards emulate bfloat16, slowly.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    return stored_dtype(files)


def stored_dtype(files: CheckpointFiles) -> torch.dtype | None:
    """The dtype of most weights; None if they are quantized, as the few others say nothing."""
    return None if files.config.get("quantization_config") else files.dtype
