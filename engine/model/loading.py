"""Loading of the baseline, and of checkpoints that are pruned forms of it."""

import contextlib
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..files import exists
from ..foreign import foreign_code
from ..options import Options
from ..out_of_memory import guard_memory
from ..progress import Progress
from .chat_template import has_template, start_renderer
from .checkpoint_files import CheckpointFiles, read_checkpoint_files
from .device import find_device, gpu_indices, placement, why_no_gpu
from .device_map import describe_device_map, device_map_of, install_device_hooks
from .device_memory import TooBigError, lack_of_memory
from .dropped import Dropped
from .fetch import fetch_model
from .fingerprint import files_fingerprint
from .fused_weights import fuse_weights
from .generation import generation_notes
from .llm_drop import has_drop_lists, read_drop_lists
from .memory import keep_freed_memory
from .pretrained import dtype_to_load, read_config, read_model
from .reference import PROMPT, Reference, take_reference
from .source import check_model_options, find_source
from .tokenizer import read_tokenizer
from .weight_group import share_equal_tensors, share_tensors, unchanged_weights


@dataclass(frozen=True)
class Loaded:
    """The baseline, with its tokenizer and the files that it was read from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str
    """What transformers takes to load it: a directory or a Hugging Face id."""
    fingerprint: str
    """Cache key of the files: it differs for other weights or another tokenizer."""
    files: CheckpointFiles
    reference: Reference
    notes: list[str] = field(default_factory=list)
    """`Header.notes` of the traces that the model decodes."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A pruned form of the baseline."""

    model: PreTrainedModel
    name: str
    dropped: Dropped
    """The sublayers that its config lists as dropped (LLM-Drop)."""
    fingerprint: str
    files: CheckpointFiles
    reference: Reference
    notes: list[str]


def load(options: Options, progress: Progress) -> Loaded:
    """Load the baseline.

    Raises `UserError` for a model that is not there, is not whole or is of no known kind.
    """
    transformers.utils.logging.disable_progress_bar()
    check_model_options(options)
    device = find_device(options.device)
    # SDPA prefers cuDNN on recent GPUs, which plans anew for every length of the caches: each step.
    torch.backends.cuda.enable_cudnn_sdp(False)
    if device.type == "cpu":
        keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    directory, name, dequantized = fetch_model(options.model, options, progress)
    why = why_no_gpu() if options.device == "auto" else None
    on = f" on the CPU: the GPU cannot be used ({why})" if why else ""
    progress(f"loading {name}{on}", None)
    files = read_checkpoint_files(directory, name)
    if not options.raw and has_template(directory):
        start_renderer()
    trust = options.trust_remote_code
    model, notes, _ = read_model(
        files,
        read_config(files, name, trust=trust),
        name,
        device=device,
        placement=placement(options, device),
        dtype=dtype_to_load(options, device, files, dequantized=dequantized),
        trust=trust,
    )
    if spread := describe_device_map(name, device_map_of(model)):
        notes.append(spread)
    vocabulary = model.config.get_text_config().vocab_size
    tokenizer = read_tokenizer(directory, name, vocabulary, trust=trust)
    source = str(directory) if exists(find_source(options.model)) else name
    notes += generation_notes(model)
    if why:
        dtype = str(model.dtype).removeprefix("torch.")
        notes.append(f"The GPU cannot be used ({why}): {name} runs on the CPU, in {dtype}.")
    progress(f"reading a few tokens with {name} as it is", None)
    reference = _reference(model, name, _first_tokens(tokenizer, options.prompt, vocabulary))
    fuse_weights(model)
    fingerprint = files_fingerprint(directory, model)
    return Loaded(model, tokenizer, name, source, fingerprint, files, reference, notes)


def load_checkpoint(
    model: str, options: Options, baseline: Loaded, progress: Progress
) -> LoadedCheckpoint:
    """Load a pruned form of the baseline.

    Raises `UserError` as `load` does, and for another vocabulary or hidden size.
    """
    directory, name, _ = fetch_model(model, options, progress)
    progress(f"loading {name}", None)
    files = read_checkpoint_files(directory, name)
    # LLM-Drop's own model code is not needed: its lists are complete.
    trust = options.trust_remote_code and not has_drop_lists(files.config)
    config = read_config(files, name, trust=trust)
    text_config, baseline_config = config.get_text_config(), baseline.model.config.get_text_config()
    for key, what in (("vocab_size", "vocabulary"), ("hidden_size", "hidden size")):
        size, baseline_size = getattr(text_config, key), getattr(baseline_config, key)
        if size != baseline_size:
            raise UserError(
                f"{name} is no pruned form of the baseline: its {what} is {size}, "
                f"the baseline's {baseline_size}"
            )
    dropped = read_drop_lists(files.config, text_config.num_hidden_layers, name)
    # Libraries quantize for the device that they load to. Other weights wait in files mapped into
    # memory, and those that equal the baseline's never reach its devices to stay.
    device_map = device_map_of(baseline.model)
    quantized = "quantization_config" in files.config
    loaded, notes, missing = read_model(
        files,
        config,
        name,
        device=baseline.model.device if quantized else torch.device("cpu"),
        placement=device_map if quantized else None,
        dtype=baseline.model.dtype,
        trust=trust,
        may_be_missing=dropped.explains,
    )
    # What a dropped sublayer gives is replaced: any weights do, and the baseline's cost no memory.
    indices = gpu_indices(baseline.model.device, device_map)
    too_big = lack_of_memory(name, files, baseline.model.dtype, indices, shared=True)
    with guard_memory(too_big, TooBigError):
        share_tensors(loaded, baseline.model, missing)
    with unchanged_weights(loaded):
        share_equal_tensors(loaded, baseline.model)
    if not quantized:
        install_device_hooks(loaded, device_map)
    # Of stock transformers with the checkpoint's own weights: those that are shared are the same
    # bits.
    reference = _reference(loaded, name, baseline.reference.tokens[:PROMPT].tolist())
    fingerprint = files_fingerprint(directory, loaded)
    return LoadedCheckpoint(loaded, name, dropped, fingerprint, files, reference, notes)


def _reference(model: PreTrainedModel, name: str, tokens: list[int]) -> Reference:
    with (
        guard_memory(
            f"out of memory while {name} read {len(tokens)} tokens; fewer or smaller models "
            "need less"
        ),
        foreign_code(f"{name} cannot read text", "its config.json may be another model's"),
    ):
        return take_reference(model, tokens)


def _first_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str, vocabulary: int) -> list[int]:
    """The first tokens of the prompt, or arbitrary ones if it is too short or cannot be read."""
    with contextlib.suppress(UserError), foreign_code("the tokenizer"):
        encoded: Any = tokenizer(prompt[:500], verbose=False)
        tokens: list[int] = encoded["input_ids"][:PROMPT]
        if len(tokens) == PROMPT and min(tokens) >= 0 and max(tokens) < vocabulary:
            return tokens
    return [token % vocabulary for token in range(1, PROMPT + 1)]
