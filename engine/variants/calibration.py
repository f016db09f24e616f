"""Calibration text, on which importance and input statistics are measured."""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from ..errors import OptionError, UserError
from ..model.context_length import context_length
from ..model.generation import end_tokens
from ..model.loading import Loaded
from ..model.prompts import check_known
from ..model.tokenizer import encode
from ..options import Options
from ..progress import Progress
from .calibration_text import DATASET, read_calibration_text


class Calibration:
    """Calibration samples of equal length, tokenised or generated on first use."""

    def __init__(self, loaded: Loaded, options: Options, progress: Progress) -> None:
        """Read the text. Raises `UserError` if that fails, or for a data set without a name."""
        self._loaded = loaded
        self._progress = progress
        self._source = options.calibration
        self._count = options.calibration_samples
        self._length = options.calibration_length
        self._seed = options.calibration_seed
        self._text = read_calibration_text(self._source)
        self._windows: list[Tensor] | None = None

    @property
    def key(self) -> list[str]:
        """Strings that change with the samples, for cache keys."""
        seed = [str(self._seed)] if self._seed else []
        return [self._text or self._source or "", str(self._count), str(self._length), *seed]

    def windows(self) -> list[Tensor]:
        """Samples, int64 [length] each. Raises `UserError` if there is not enough text for one, or
        the model cannot read them."""
        if self._windows is None:
            self._windows = self._samples_of_source()
        return self._windows

    @property
    def tokens(self) -> int:
        return sum(len(window) for window in self.windows())

    def _samples_of_source(self) -> list[Tensor]:
        limit = context_length(self._loaded.model)
        if limit is not None and self._length > limit:
            raise OptionError(
                f"calibration samples of {self._length} tokens are longer than the model's context "
                f"of {limit}; use a smaller --calibration-length"
            )
        if self._source == "self":
            return _generated(
                self._loaded,
                self._count,
                self._length,
                self._seed,
                lambda done: self._progress("writing the calibration text", done),
            )
        text = self._text
        if text is None:
            assert self._source is not None
            # About four characters make a token; twice as many are enough.
            self._progress(f"reading {self._source}", None)
            text = _dataset_text(self._source, 8 * self._count * self._length)
        tokens = torch.tensor(encode(self._loaded.tokenizer, text))
        if len(tokens) < self._length:
            raise OptionError(
                f"the calibration text has {len(tokens)} tokens, less than one sample of "
                f"{self._length}; use a longer text or a smaller --calibration-length"
            )
        windows = [tokens[start : start + self._length] for start in self._starts(len(tokens))]
        check_known(torch.cat(windows).tolist(), self._loaded)
        return windows

    def _starts(self, tokens: int) -> list[int]:
        """Starts of the samples in a text of so many tokens: one after another from its beginning
        with seed 0, at random with another, where they may overlap."""
        count = min(self._count, tokens // self._length)
        if not self._seed:
            return [self._length * number for number in range(count)]
        last = tokens - self._length
        if not last:
            raise OptionError(
                f"the calibration text has {tokens} tokens, just one sample, and so "
                "--calibration-seed has no choice; use a longer text or a smaller "
                "--calibration-length"
            )
        return sorted(random.Random(self._seed).sample(range(last + 1), count))


@torch.inference_mode()
def _generated(
    loaded: Loaded, samples: int, length: int, seed: int, report: Callable[[float], None]
) -> list[Tensor]:
    """Tokens that the baseline generates at temperature 1 from its first."""
    model: Any = loaded.model
    ends = sorted(end_tokens(model, loaded.tokenizer)) or None
    # The model's own config may penalise repetitions.
    own_config, model.generation_config = model.generation_config, GenerationConfig()
    start = loaded.tokenizer.bos_token_id
    if not isinstance(start, int):
        start = loaded.tokenizer.eos_token_id
    if not isinstance(start, int):
        start = 0
    check_known([start], loaded)

    def go_on(tokens: Tensor, _scores: object) -> Tensor:
        report((tokens.shape[1] - 1) / length)
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)

    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            tokens = model.generate(
                torch.full((samples, 1), start, device=model.device),
                attention_mask=torch.ones(samples, 1, dtype=torch.long, device=model.device),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                eos_token_id=ends,
                min_new_tokens=length,
                max_new_tokens=length,
                pad_token_id=start,
                stopping_criteria=[go_on],
            )
    finally:
        model.generation_config = own_config
    return [*tokens[:, 1:].cpu()]


def _dataset_text(source: str, characters: int) -> str:
    """Beginning of a data set's `text` column, streamed."""
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise OptionError(
            f"--calibration {source} needs the datasets package: pip install 'prunetui[hf]'"
        ) from error
    name, _, config = source.removeprefix(DATASET).partition(":")
    texts: list[str] = []
    length = 0
    try:
        for row in load_dataset(name, config or None, split="train", streaming=True):
            if not isinstance(row.get("text"), str):
                raise OptionError(
                    f"the data set {source} has no column `text` of strings, but {', '.join(row)}"
                )
            texts.append(row["text"])
            length += len(row["text"])
            if length >= characters:
                break
    except UserError:
        raise
    # The hub's client and each data set raise errors of their own.
    except Exception as error:
        raise UserError(f"the data set {source} cannot be read ({error})") from error
    return "\n\n".join(texts)
