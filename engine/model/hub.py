"""Models on the Hugging Face hub: the files that are read are fetched into the hub's cache."""

import glob
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.hf_api import RepoFile
from tqdm.auto import tqdm

from ..errors import UserError, reason
from ..files import exists
from ..foreign import foreign_code
from ..progress import Progress
from .checkpoint_files import CONFIG, INDEX, WEIGHTS, read_weight_map
from .source import ADAPTER, HubName

SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
"""Patterns of configs and of what tokenizers read, whose names are theirs to choose."""
MAX_SMALL_BYTES = 100_000_000
"""Larger files of those patterns are data; Gemma 3's tokenizer.json, a large one, has 33 MB."""
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
        directory = self._snapshot([CONFIG])
        # The rest is fetched from the same commit, whatever is pushed meanwhile.
        self.revision = directory.name
        files = self._list_files()
        large = [file for file, size in (files or {}).items() if size > MAX_SMALL_BYTES]
        patterns = [*SMALL_FILES, "*.py"] if code else [*SMALL_FILES]
        self._snapshot(patterns, ignore=["*/*", *map(glob.escape, large)])
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
            # Refuses what would be refused once it is fetched.
            return self._snapshot(map(glob.escape, {*read_weight_map(index).values()}))
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

    def _list_files(self) -> dict[str, int] | None:
        """Bytes of all files of the commit by name; None without a network, where the cached ones
        must do."""
        try:
            tree = HfApi().list_repo_tree(
                self.name.repository, recursive=True, revision=self.revision
            )
            return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
        except Exception:
            return None

    def _fetch_gguf(self, file: str, files: Iterable[str] | None) -> Path:
        if files is not None and file not in files:
            raise UserError(f"{self.name.repository} has no file {file}; {self._choices(files)}")
        shards = [file]
        if match := _SHARD.fullmatch(file):
            stem, _, count = match.groups()
            shards = [f"{stem}-{n:05}-of-{count}.gguf" for n in range(1, int(count) + 1)]
        directory = self._snapshot(glob.escape(shard) for shard in shards)
        return directory / shards[0]

    def _refusal(self, files: Iterable[str]) -> UserError:
        name = HubName(self.name.repository, None, self.name.revision)
        if any(file.endswith(".gguf") for file in files):
            return UserError(f"{name} is a repository of GGUF files; {self._choices(files)}")
        if CONFIG not in files:
            return UserError(f"{name} holds no model: it has no {CONFIG}")
        weights = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".safetensors"))]
        return UserError(
            f"{name} has no {WEIGHTS}, and weights are read from safetensors alone; it has "
            f"{_listed(weights) or 'no weights at all'}"
        )

    def _choices(self, files: Iterable[str]) -> str:
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
