"""Models on the Hugging Face hub: the files that are read are fetched into the hub's cache."""

import glob
import io
import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from tqdm.auto import tqdm

from ..errors import UserError, reason
from ..files import exists
from ..foreign import foreign_code
from ..progress import Progress
from .checkpoint_files import INDEX, WEIGHTS
from .source import ADAPTER, HubName

SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
MAX_LISTED = 20
"""The most file names in a sentence."""

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


def download(name: HubName, code: bool, progress: Progress) -> Path:
    """Fetch a directory of safetensors, or the named GGUF file; `code` includes the model's Python.

    Raises `UserError` if the hub gives no model that can be read, before any weights are fetched
    if the list of files shows it.
    """
    progress(f"looking for {name}", None)
    what = f"there is no directory {name}, and the Hugging Face hub did not give a model of that "
    with foreign_code(f"{what}name"):
        try:
            return _Repository(name, progress).fetch(code)
        except OSError as error:
            # Errors of the network have no number.
            if error.errno is None:
                raise
            raise UserError(
                f"{name} cannot be kept in {constants.HF_HUB_CACHE} ({reason(error)}); set HF_HOME "
                "to a directory that can be written and has room"
            ) from error


class _Repository:
    def __init__(self, name: HubName, progress: Progress) -> None:
        self.name = name
        self.revision = name.revision

        class ProgressBar(tqdm):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options | {"file": io.StringIO()})

            def update(self, n: float | None = 1) -> bool | None:
                displayed = super().update(n)
                if self.total:
                    progress(f"downloading {name}", min(1.0, self.n / self.total))
                return displayed

        self._progress_bar = ProgressBar

    def fetch(self, code: bool) -> Path:
        patterns = [*SMALL_FILES, "*.py"] if code else [*SMALL_FILES]
        directory = self._snapshot(patterns, ignore=["*/*"])
        # The rest is fetched from the same commit, whatever is pushed meanwhile.
        self.revision = directory.name
        files = self._list_files()
        if self.name.gguf is not None:
            return self._fetch_gguf(self.name.gguf, files)
        index = directory / INDEX
        if files is not None and WEIGHTS not in files and not exists(index):
            # An adapter is refused when the directory is read.
            if ADAPTER in files:
                return directory
            raise self._refusal(files)
        # The choice that transformers makes.
        if exists(index) and WEIGHTS not in (files or ()):
            shards = {*json.loads(index.read_bytes())["weight_map"].values()}
            return self._snapshot(glob.escape(shard) for shard in shards)
        return self._snapshot([WEIGHTS])

    def _snapshot(self, patterns: Any, ignore: list[str] | None = None) -> Path:
        """The directory of the commit, with the files of these patterns."""
        return Path(
            snapshot_download(
                self.name.repository,
                revision=self.revision,
                allow_patterns=[*patterns],
                ignore_patterns=ignore,
                tqdm_class=self._progress_bar,
            )
        )

    def _list_files(self) -> list[str] | None:
        """All files of the commit; None without a network, where the cached ones must do."""
        try:
            return HfApi().list_repo_files(self.name.repository, revision=self.revision)
        except Exception:
            return None

    def _fetch_gguf(self, file: str, files: list[str] | None) -> Path:
        if files is not None and file not in files:
            raise UserError(f"{self.name.repository} has no file {file}; {self._choices(files)}")
        shards = [file]
        if match := _SHARD.fullmatch(file):
            stem, _, count = match.groups()
            shards = [f"{stem}-{n:05}-of-{count}.gguf" for n in range(1, int(count) + 1)]
        directory = self._snapshot(glob.escape(shard) for shard in shards)
        return directory / shards[0]

    def _refusal(self, files: list[str]) -> UserError:
        name = HubName(self.name.repository, None, self.name.revision)
        if any(file.endswith(".gguf") for file in files):
            return UserError(f"{name} is a repository of GGUF files; {self._choices(files)}")
        if "config.json" not in files:
            return UserError(f"{name} holds no model: it has no config.json")
        weights = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".safetensors"))]
        return UserError(
            f"{name} has no {WEIGHTS}, and weights are read from safetensors alone; it has "
            f"{_listed(weights) or 'no weights at all'}"
        )

    def _choices(self, files: list[str]) -> str:
        ggufs = [file for file in files if file.endswith(".gguf")]
        # The first of several shards stands for all.
        ggufs = [f for f in ggufs if not (match := _SHARD.fullmatch(f)) or int(match[2]) == 1]
        if not ggufs:
            return "it has no GGUF file"
        example = HubName(self.name.repository, ggufs[0], self.name.revision)
        return f"name one of them, as in {example}: {_listed(ggufs)}"


def _listed(files: list[str]) -> str:
    more = len(files) - MAX_LISTED
    return ", ".join(files[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
