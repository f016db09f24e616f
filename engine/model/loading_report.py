"""The loading report: weights that are missing, left over or of another shape."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import UserError
from .checkpoint_files import CheckpointFiles, counted

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
"""The index of a decoder layer in the name of a weight."""

_HINTS = (
    (r"\.lora_[AB]\.|\.base_layer\.", "they are those of a LoRA adapter; merge it first"),
    (
        r"\.weight_(orig|mask)$",
        "torch.nn.utils.prune made them; call its remove on every module, which makes the pruning "
        "permanent, and save again",
    ),
    (
        r"\.(qweight|qzeros|weight_packed|absmax|SCB)$",
        "they are quantized, and config.json does not say how",
    ),
)

WRAPPERS = {
    r"(^|\.)_orig_mod\.": r"\1",
    r"(^|\.)_fsdp_wrapped_module\.": r"\1",
    r"(^|\.)_checkpoint_wrapped_module\.": r"\1",
    r"^module\.": "",
}
"""Replacements that take away what torch.compile, FSDP, activation checkpointing and DDP add to the
names of weights."""


def unwrapped_names(files: CheckpointFiles, name: str) -> tuple[dict[str, str], list[str]]:
    """Renamings that take the prefixes of wrappers off the names of weights, and a note on each."""
    renamings = {
        pattern: replacement
        for pattern, replacement in WRAPPERS.items()
        if any(re.search(pattern, key) for key in files.tensors)
    }
    prefixes = [re.sub(r"\W*(\w+)\W*$", r"\1.", p.replace(r"(^|\.)", "")) for p in renamings]
    return renamings, [
        f"the names of {name}'s weights have the prefix {prefix} of a wrapper around the model; "
        "they are read without it."
        for prefix in prefixes
    ]


def unwrapped(name: str) -> str:
    """The name of a weight without the prefixes of wrappers."""
    for pattern, replacement in WRAPPERS.items():
        name = re.sub(pattern, replacement, name)
    return name


def check_report(
    report: dict[str, Any],
    files: CheckpointFiles,
    name: str,
    may_be_missing: Callable[[str], bool] = lambda _: False,
) -> list[str]:
    """Notes on weights outside of the decoder layers that the model has no place for.

    `report` is what `from_pretrained` gives with `output_loading_info`; `may_be_missing` says of a
    weight whether the files may lack it. Raises `UserError` for other missing weights, for another
    shape, and for weights of a decoder layer that the model has no place for.
    """
    missing = sorted(key for key in report["missing_keys"] if not may_be_missing(key))
    unexpected = sorted(report["unexpected_keys"])
    if mismatched := sorted(report["mismatched_keys"]):
        key, stored, expected = mismatched[0]
        file = next(
            (t.file.name for other, t in files.tensors.items() if _is_same_weight(key, other)), ""
        )
        more = f", and {len(mismatched) - 1} more do not fit" if mismatched[1:] else ""
        raise UserError(
            f"{name} does not fit its config.json: {key} {f'in {file} ' if file else ''}is "
            f"{[*stored]}, and the model's is {[*expected]}{more}; transformers builds every layer "
            "of its family alike"
        )
    hint = next((hint for p, hint in _HINTS if any(re.search(p, key) for key in unexpected)), None)
    if missing:
        because = hint or _numbering_hint(missing, unexpected)
        raise UserError(
            f"{name} is not whole: {counted(missing, 'weight')} {_is(missing)} missing"
            + (f"; {because}" if because else "")
        )
    if in_layers := [key for key in unexpected if _LAYER.search(key)]:
        raise UserError(
            f"{name} has {counted(in_layers, 'weight')} that its model has no place for; "
            + (hint or _depth_hint(in_layers, files) or "its config.json is another model's")
        )
    if not unexpected:
        return []
    return [
        f"{name} has {counted(unexpected, 'weight')} that its model has no place for; "
        "they are not read."
    ]


def _is_same_weight(key: str, other: str) -> bool:
    """Whether two names are those of one weight, with or without the base model's prefix."""
    return key == other or key.endswith(f".{other}") or other.endswith(f".{key}")


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _layers(keys: Iterable[str]) -> list[int]:
    return sorted({int(match[1]) for key in keys if (match := _LAYER.search(key))})


def _numbering_hint(missing: list[str], unexpected: list[str]) -> str:
    """A hint for layers that were dropped without renumbering the others, or an empty text."""
    gaps, surplus = _layers(missing), _layers(unexpected)
    if not gaps or not surplus:
        return ""
    return (
        f"layers {_listed(gaps)} have none and the files have layers {_listed(surplus)}, so the "
        "layers that were left were not numbered again: rename them to run from 0"
    )


def _depth_hint(in_layers: list[str], files: CheckpointFiles) -> str:
    """A hint for a config of fewer layers than there are, or an empty text."""
    text = files.config.get("text_config")
    config = {**files.config, **(text if isinstance(text, dict) else {})}
    depth = config.get("num_hidden_layers", config.get("n_layer"))
    layers = _layers(in_layers)
    if not isinstance(depth, int) or min(layers) < depth:
        return ""
    return (
        f"config.json says {depth} layers and they are of layers {_listed(layers)}: "
        "correct num_hidden_layers, or remove those weights"
    )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", …" if numbers[8:] else "")
