"""Calibration text: what importance is measured on."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .errors import UserError, reason

WINDOW = 256
"""Tokens a sample."""
SAMPLES = 16


def calibration_text(file: str | None) -> str:
    """The file's text, or that of the one that comes with prunetui: English of many kinds."""
    if file is None:
        return Path(__file__).with_name("calibration.txt").read_text("utf-8")
    try:
        text = Path(file).read_text("utf-8")
    except OSError as error:
        raise UserError(f"cannot read the calibration text {file}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the calibration text {file} is not UTF-8 (byte {error.start})") from error
    if not text.strip():
        raise UserError(f"the calibration text {file} is empty")
    return text


def token_windows(text: str, tokenizer: PreTrainedTokenizerBase) -> list[Tensor]:
    """The first `SAMPLES` consecutive windows of `WINDOW` tokens, int64 [tokens] each.

    A text shorter than one window is one short sample.
    """
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    whole = [window for window in tokens.split(WINDOW) if len(window) == WINDOW]
    return whole[:SAMPLES] or [tokens]
