"""Opening of lm-eval's tasks, which imports lm-eval."""

from collections.abc import Sequence
from importlib.util import find_spec

from ...errors import UserError
from ...foreign import foreign_code
from ..lanes import EvaluatedLanes
from ..requests import Generator, Rater
from ..task import EvaluationTask

DEMO_TASKS = ("additions", "additions_gen", "mmlu_dev")
"""Tasks that need no network: sums with four options, the same sums written, and MMLU's questions
for development, which lm-eval's package holds."""


def open_harness_tasks(
    names: Sequence[str], lanes: EvaluatedLanes, rater: Rater, generator: Generator
) -> list[EvaluationTask]:
    """Tasks by lm-eval's names of tasks, groups and tags, `DEMO_TASKS`, and YAML files.

    A task that several names mean is asked once. Raises `UserError` where lm-eval is not installed,
    and for what cannot be asked: see `open_definitions`.
    """
    if not find_spec("lm_eval"):
        raise UserError("lm-eval is not installed: pip install 'prunetui[eval]'")
    lanes.progress("importing lm-eval", None)
    with foreign_code("lm-eval cannot be imported", "pip install 'prunetui[eval]' installs it"):
        from .tasks import open_tasks
    return open_tasks(names, lanes, rater, generator)
