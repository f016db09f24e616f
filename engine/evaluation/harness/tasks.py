"""From names to tasks that can be asked of the lanes."""

from collections.abc import Sequence

from ...errors import UserError
from ...foreign import foreign_code
from ...model.loading import Loaded
from ..lanes import EvaluatedLanes
from ..requests import Generator, Rater
from ..task import EvaluationTask
from .definitions import Definition, open_definitions
from .demo import DEMO, open_demo
from .documents import check_chat_template
from .harness_task import GeneratedTask, RatedTask
from .sealed import sealed
from .stock_requests import StockRequests


def open_tasks(
    names: Sequence[str], lanes: EvaluatedLanes, rater: Rater, generator: Generator
) -> list[EvaluationTask]:
    stock = _open_stock_requests(lanes.loaded)
    if lanes.settings.apply_chat_template:
        check_chat_template(stock, lanes.loaded.name)
    tasks: dict[str, RatedTask | GeneratedTask] = {}
    for name in names:
        lanes.progress(f"opening task {name}", None)
        for definition in [open_demo(name)] if name in DEMO else open_definitions(name):
            task = _make_task(definition, lanes, stock, rater, generator)
            other = tasks.setdefault(task.name, task)
            if other.record.digest != task.record.digest:
                raise UserError(
                    f"two tasks that are asked are called {task.name}; give one another name, or "
                    "leave it out"
                )
            if other.record.group is None:
                # Asked for by its own name before: it counts in its group's mean too.
                tasks[task.name] = task
            elif task.record.group not in (None, other.record.group):
                raise UserError(
                    f"task {task.name} counts in the means of {other.record.group} and "
                    f"{task.record.group}, and one evaluation has one of them; leave the other out"
                )
    return [*tasks.values()]


def _open_stock_requests(loaded: Loaded) -> StockRequests:
    tokenizer = loaded.tokenizer
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise UserError(
            f"{loaded.name} has neither a beginning nor an end token, and lm-eval needs one; set "
            "eos_token in its tokenizer_config.json"
        )
    with foreign_code(f"lm-eval cannot use the tokenizer of {loaded.name}"), sealed():
        return StockRequests(loaded)


def _make_task(
    definition: Definition,
    lanes: EvaluatedLanes,
    stock: StockRequests,
    rater: Rater,
    generator: Generator,
) -> RatedTask | GeneratedTask:
    task = definition.task
    if task.OUTPUT_TYPE != "generate_until":
        return RatedTask(definition, lanes, stock, rater)
    if lanes.loaded.tokenizer.eos_token_id is None:
        raise UserError(
            f"{lanes.loaded.name} has no end token, and task {task.config.task} generates up to "
            "it; set eos_token in its tokenizer_config.json"
        )
    return GeneratedTask(definition, lanes, stock, generator)
