"""The calibration text as it is named on the command line; no torch."""

import json
from pathlib import Path

from ..errors import OptionError
from ..files import expanded, read_text

DATASET = "hf:"
"""Beginning of the name of a data set."""


def file_source(file: str) -> str:
    """Source that is this file, whatever its name: absolute, so that it is not `self`."""
    return str(expanded(file).absolute())


def read_calibration_text(source: str | None) -> str | None:
    """The bundled text or that of a file; None for a data set, and for `self`.

    Raises `UserError` for a file that cannot be read, and for a data set without a name.
    """
    if source is None:
        return Path(__file__).with_name("calibration.txt").read_text("utf-8")
    if source == DATASET:
        raise OptionError(
            f"--calibration {DATASET} names no data set; say which, as in hf:allenai/c4"
        )
    if source == "self" or source.startswith(DATASET):
        return None
    return _read_file(expanded(source))


def _read_file(file: Path) -> str:
    """Text of a file, or the joined `text` fields of a JSONL file."""
    text = read_text(file, "calibration text")
    if file.suffix == ".jsonl":
        try:
            text = "\n\n".join(
                json.loads(line)["text"] for line in text.split("\n") if line.strip()
            )
        except (ValueError, KeyError, TypeError) as error:
            raise OptionError(f"{file} is not JSONL with a string `text` in each line") from error
    if not text.strip():
        raise OptionError(f"the calibration text {file} is empty")
    return text
