"""What a reader of the table must know of an evaluation, for the HTML and Markdown reports."""

import shlex

import msgspec

from ...trace.export.html import option_words
from ...trace.export.session_facts import model_facts, versions_text
from ..records import Header, Pooling, Settings
from ..results import Results

POOLING: dict[Pooling, str] = {
    "last": "of an end token after the text",
    "mean": "mean over the text's tokens",
    "prompt": "of the last token of a prompt that asks for one word",
}


def evaluation_facts(results: Results) -> dict[str, str]:
    """Facts by their name."""
    header = results.header
    settings = header.settings
    kinds = {task.kind for task in header.tasks}
    facts = {
        **model_facts(header.model),
        "asked": _asked(settings),
        "read": f"{settings.batch_size} texts together",
        "noise floor": f"{header.noise_floor:.2g} nats: the most that a log probability moves when "
        "texts are read in batches instead of alone",
    }
    if "retrieval" in kinds:
        instruction = f", instruction {settings.instruction!r}" if settings.instruction else ""
        facts["embedding"] = (
            f"{POOLING[settings.pooling]}, L2-normalised, at most {settings.max_tokens} tokens"
            f"{instruction}"
        )
    facts["evaluated"] = header.created
    facts["versions"] = versions_text(header.versions)
    if not results.complete:
        there = sum(map(len, results.items.values()))
        facts["not complete"] = (
            f"{there} of {sum(task.items for task in header.tasks)} items so far"
        )
    return facts


def _asked(settings: Settings) -> str:
    few_shot = settings.num_fewshot
    shots = "examples as each task has them" if few_shot is None else f"{few_shot} examples each"
    limit = "all items" if settings.limit is None else f"the first {settings.limit} items of a task"
    chat = "through the chat template" if settings.apply_chat_template else "no chat template"
    return f"{limit}, {shots}, {chat}, seed {settings.seed}"


def command(header: Header) -> str:
    """Shell command that evaluates the same again."""
    words = ["prunetui", "eval", *option_words(header.options)]
    defaults = msgspec.structs.asdict(Settings())
    for key, value in msgspec.structs.asdict(header.settings).items():
        if value == defaults[key]:
            continue
        name = f"--{key.replace('_', '-')}"
        if key == "tasks":
            # A name with a comma stands alone.
            for names in value if any("," in task for task in value) else [",".join(value)]:
                words += [name, names]
        else:
            words += [name] if value is True else [name, str(value)]
    return shlex.join(words)
