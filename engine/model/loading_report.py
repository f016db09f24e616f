"""What loading left over: weights that a model lacks, has no place for, or has in another shape."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import UserError
from .checkpoint_files import CheckpointFiles, counted

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
"""A decoder layer's number in the name of a weight."""

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
"""What torch.compile, FSDP, activation checkpointing and DDP add to the names of weights, and what
stands there without it."""


def unwrapped_names(files: CheckpointFiles, name: str) -> tuple[dict[str, str], list[str]]:
    """Renamings that take wrappers' prefixes off the names of weights, and a note on each."""
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
    """The name of a weight without what wrappers add to it."""
    for pattern, replacement in WRAPPERS.items():
        name = re.sub(pattern, replacement, name)
    return name


def check_report(
    report: dict[str, Any],
    files: CheckpointFiles,
    name: str,
    explained: Callable[[str], bool] = lambda _: False,
) -> list[str]:
    """Notes on weights outside of the decoder layers that the model has no place for.

    `report` is what `from_pretrained` gives with `output_loading_info`; `explained` says of a
    missing weight whether it may be missing. Raises `UserError` for other missing weights, for
    another shape, and for weights of a decoder layer that the model has no place for.
    """
    missing = sorted(key for key in report["missing_keys"] if not explained(key))
    unexpected = sorted(report["unexpected_keys"])
    if mismatched := sorted(report["mismatched_keys"]):
        key, stored, wanted = mismatched[0]
        file = next(
            (t.file.name for other, t in files.tensors.items() if _same_weight(key, other)), ""
        )
        more = f", and {len(mismatched) - 1} more do not fit" if mismatched[1:] else ""
        raise UserError(
            f"{name} does not fit its config.json: {key} {f'in {file} ' if file else ''}is "
            f"{[*stored]}, and the model's is {[*wanted]}{more}; transformers builds every layer "
            "of its family alike"
        )
    hint = next((hint for p, hint in _HINTS if any(re.search(p, key) for key in unexpected)), None)
    if missing:
        because = hint or _numbering(missing, unexpected)
        raise UserError(
            f"{name} is not whole: {counted(missing, 'weight')} {_is(missing)} missing"
            + (f"; {because}" if because else "")
        )
    if in_layers := [key for key in unexpected if _LAYER.search(key)]:
        raise UserError(
            f"{name} has {counted(in_layers, 'weight')} that its model has no place for; "
            + (hint or _depth(in_layers, files) or "its config.json is another model's")
        )
    if not unexpected:
        return []
    return [
        f"{name} has {counted(unexpected, 'weight')} that its model has no place for; "
        "they are not read."
    ]


def _same_weight(key: str, other: str) -> bool:
    """With or without the prefix of the base model."""
    return key == other or key.endswith(f".{other}") or other.endswith(f".{key}")


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _layers(keys: Iterable[str]) -> list[int]:
    return sorted({int(match[1]) for key in keys if (match := _LAYER.search(key))})


def _numbering(missing: list[str], unexpected: list[str]) -> str:
    """Layers whose numbers have a gap, as they are left when some were dropped."""
    gaps, others = _layers(missing), _layers(unexpected)
    if not gaps or not others:
        return ""
    return (
        f"layers {_listed(gaps)} have none and the files have layers {_listed(others)}, so the "
        "layers that were left were not numbered again: rename them to run from 0"
    )


def _depth(in_layers: list[str], files: CheckpointFiles) -> str:
    """A config that says fewer layers than there are."""
    text = files.config.get("text_config")
    said = {**files.config, **(text if isinstance(text, dict) else {})}
    depth = said.get("num_hidden_layers", said.get("n_layer"))
    layers = _layers(in_layers)
    if not isinstance(depth, int) or min(layers) < depth:
        return ""
    return (
        f"config.json says {depth} layers and they are of layers {_listed(layers)}: "
        "correct num_hidden_layers, or remove those weights"
    )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", …" if numbers[8:] else "")
