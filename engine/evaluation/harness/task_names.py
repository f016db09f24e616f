"""Where lm-eval defines a task, group or tag, without parsing its thousands of files."""

import difflib
import os
import re
from functools import cache
from pathlib import Path

import lm_eval.tasks

_TASKS = Path(lm_eval.tasks.__file__).parent
_DEFINITION = re.compile(
    r"""^"?(?:task|group)"?[ ]*:[ ]*(?P<name>[^\s#\[{|>].*)$
    | ^"?tag"?[ ]*:(?P<tags>.*(?:\n[ ]*-.*)*)$
    | ^"?include"?[ ]*:(?P<files>.*(?:\n[ ]*-.*)*)$""",
    re.MULTILINE | re.VERBOSE,
)
_WORD = re.compile(r"[^\s,'\"\[\]#]+")


@cache
def _folders_by_name() -> dict[str, set[Path]]:
    """Folders of lm-eval's tasks in whose files a task, group or tag of the name is defined."""
    names: dict[Path, set[str]] = {}
    included: dict[Path, set[Path]] = {}
    for directory, _, files in os.walk(_TASKS):
        for file in files:
            # Parts that definitions include have names such as `_default_yaml` and `_common`.
            if "yaml" not in file and "." in file:
                continue
            path = Path(directory, file)
            names[path], included[path] = set(), set()
            for match in _DEFINITION.finditer(path.read_text(errors="replace")):
                names[path].update(_WORD.findall(match["name"] or match["tags"] or ""))
                for other in _WORD.findall(match["files"] or ""):
                    included[path].add(Path(os.path.normpath(path.parent / other)))
    folders: dict[str, set[Path]] = {}
    for path in names:
        parts, todo = set[Path](), [path]
        while todo:
            parts.add(part := todo.pop())
            todo += included.get(part, set()) - parts
        for name in set[str]().union(*(names.get(part, ()) for part in parts)):
            folders.setdefault(name, set()).add(path.parent)
    return folders


def folders_of(name: str) -> set[Path]:
    """Folders with files that define the name; none where lm-eval does not know it."""
    return _folders_by_name().get(name, set())


def near_names(name: str) -> list[str]:
    """Known names that resemble an unknown one, nearest first."""
    return difflib.get_close_matches(name, _folders_by_name().keys() - {name}, n=3)


def is_lm_evals(path: Path) -> bool:
    """Whether a file belongs to lm-eval's package."""
    return path.resolve().is_relative_to(_TASKS)
