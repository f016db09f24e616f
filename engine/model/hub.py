"""A model on the Hugging Face hub, fetched into the hub's cache: no more of it than is read."""

import glob
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from tqdm.auto import tqdm

from ..errors import UserError, reason
from ..files import exists
from ..foreign import foreign_code
from .checkpoint_files import ADAPTER, INDEX, WEIGHTS

SMALL = ("*.json", "*.model", "*.txt", "*.jinja")
SHOWN = 20
"""File names in a sentence."""

_NAME = re.compile(r"([\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:/([^@]+\.gguf))?(?:@(\S+))?")
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class HubName:
    """`owner/name`, with `/FILE.gguf` for one of its files and `@REVISION` for a branch, a tag or a
    commit."""

    repository: str
    gguf: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        file = f"/{self.gguf}" if self.gguf else ""
        return f"{self.repository}{file}" + (f"@{self.revision}" if self.revision else "")


def hub_name(text: str) -> HubName | None:
    """None for what the hub cannot have."""
    match = _NAME.fullmatch(text)
    if match is None or match[1].endswith(".gguf"):
        return None
    return HubName(*match.groups())


def download(name: HubName, code: bool, progress: Callable[[str, float | None], None]) -> Path:
    """A directory of safetensors, or the GGUF file that is named; `code` fetches the model's Python
    too.

    Raises `UserError` where the hub gives no model that can be read, before any weights are
    fetched if the list of its files tells.
    """
    progress(f"looking for {name}", None)
    what = f"there is no directory {name}, and the Hugging Face hub did not give a model of that "
    with foreign_code(f"{what}name"):
        try:
            return _Repository(name, progress).fetch(code)
        except OSError as error:
            # What the network says has no number.
            if error.errno is None:
                raise
            raise UserError(
                f"{name} cannot be kept in {constants.HF_HUB_CACHE} ({reason(error)}); set HF_HOME "
                "to a directory that can be written and has room"
            ) from error


class _Repository:
    def __init__(self, name: HubName, progress: Callable[[str, float | None], None]) -> None:
        self.name = name
        self.revision = name.revision

        class HubProgress(tqdm):
            def __init__(self, *given: Any, **options: Any) -> None:
                super().__init__(*given, **options | {"file": io.StringIO()})

            def update(self, n: float | None = 1) -> bool | None:
                shown = super().update(n)
                if self.total:
                    progress(f"downloading {name}", min(1.0, self.n / self.total))
                return shown

        self.tqdm = HubProgress

    def fetch(self, code: bool) -> Path:
        small = [*SMALL, "*.py"] if code else [*SMALL]
        directory = self.snapshot(small, ignore=["*/*"])
        # From the same commit, whatever is pushed meanwhile.
        self.revision = directory.name
        files = self.files()
        if self.name.gguf is not None:
            return self.gguf(self.name.gguf, files)
        index = directory / INDEX
        if files is not None and WEIGHTS not in files and not exists(index):
            # An adapter is refused by whoever reads the directory.
            if ADAPTER in files:
                return directory
            raise self.refusal(files)
        # As transformers chooses.
        if exists(index) and WEIGHTS not in (files or ()):
            named = {*json.loads(index.read_bytes())["weight_map"].values()}
            return self.snapshot(glob.escape(file) for file in named)
        return self.snapshot([WEIGHTS])

    def snapshot(self, patterns: Any, ignore: list[str] | None = None) -> Path:
        """Fetch what is not in the cache yet; the directory of the commit."""
        return Path(
            snapshot_download(
                self.name.repository,
                revision=self.revision,
                allow_patterns=[*patterns],
                ignore_patterns=ignore,
                tqdm_class=self.tqdm,
            )
        )

    def files(self) -> list[str] | None:
        """All of the commit; None where the network gives no list, and what is cached must do."""
        try:
            return HfApi().list_repo_files(self.name.repository, revision=self.revision)
        except Exception:
            return None

    def gguf(self, file: str, files: list[str] | None) -> Path:
        if files is not None and file not in files:
            raise UserError(f"{self.name.repository} has no file {file}; {self.choice(files)}")
        shards = [file]
        if match := _SHARD.fullmatch(file):
            stem, _, count = match.groups()
            shards = [f"{stem}-{n:05}-of-{count}.gguf" for n in range(1, int(count) + 1)]
        directory = self.snapshot(glob.escape(shard) for shard in shards)
        return directory / shards[0]

    def refusal(self, files: list[str]) -> UserError:
        name = HubName(self.name.repository, None, self.name.revision)
        if any(file.endswith(".gguf") for file in files):
            return UserError(f"{name} is a repository of GGUF files; {self.choice(files)}")
        if "config.json" not in files:
            return UserError(f"{name} holds no model: it has no config.json")
        weights = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".safetensors"))]
        return UserError(
            f"{name} has no {WEIGHTS}, and weights are read from safetensors alone; it has "
            f"{_listed(weights) or 'no weights at all'}"
        )

    def choice(self, files: list[str]) -> str:
        ggufs = [file for file in files if file.endswith(".gguf")]
        # Naming the first of several shards names all.
        ggufs = [f for f in ggufs if not (match := _SHARD.fullmatch(f)) or int(match[2]) == 1]
        if not ggufs:
            return "it has no GGUF file"
        named = HubName(self.name.repository, ggufs[0], self.name.revision)
        return f"name one of them, as in {named}: {_listed(ggufs)}"


def _listed(files: list[str]) -> str:
    more = len(files) - SHOWN
    return ", ".join(files[:SHOWN]) + (f" and {more} more" if more > 0 else "")
