"""From the names of tasks to what answers them."""

import itertools
from collections.abc import Sequence

from ..errors import OptionError
from ..files import expanded
from .generator import LaneGenerator
from .harness.opening import DEMO_TASKS, open_harness_tasks
from .lanes import EvaluatedLanes
from .prompts_file import open_prompts_task
from .reader import LaneReader
from .retrieval.human_eval import NAME as DEMO_RETRIEVAL
from .retrieval.task import open_demo_retrieval, open_retrieval_task
from .task import EvaluationTask


def open_tasks(
    names: Sequence[str], lanes: EvaluatedLanes, reader: LaneReader, generator: LaneGenerator
) -> list[EvaluationTask]:
    """Open tasks in the order of their names; the demo's, which need no network, if there are none.

    The path of a directory is a BEIR folder, a `.txt` file has a prompt a line, all else is
    lm-eval's. Raises `UserError` for a task that is not there, is named twice or cannot be asked.
    """
    tasks: list[EvaluationTask] = []
    for kind, of_kind in itertools.groupby(names or (*DEMO_TASKS, DEMO_RETRIEVAL), _kind_of):
        match kind:
            case "folder":
                tasks += [open_retrieval_task(name, lanes, reader) for name in of_kind]
            case "demo retrieval":
                tasks += [open_demo_retrieval(lanes, reader) for _ in of_kind]
            case "prompts":
                tasks += [open_prompts_task(expanded(name), lanes, generator) for name in of_kind]
            case _:
                tasks += open_harness_tasks([*of_kind], lanes, reader, generator)
    seen: set[str] = set()
    for task in tasks:
        if task.record.name in seen:
            raise OptionError(
                f"two tasks are called {task.record.name}; rename a file, or leave one out"
            )
        seen.add(task.record.name)
    return tasks


def _kind_of(name: str) -> str:
    path = expanded(name)
    # A directory may be called like a task.
    if path.is_dir() and ("/" in name or (path / "corpus.jsonl").exists()):
        return "folder"
    if name == DEMO_RETRIEVAL:
        return "demo retrieval"
    return "prompts" if name.endswith(".txt") else "harness"
