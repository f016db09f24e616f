"""Seconds per step of one, two and five lanes against `model.generate`, in one run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from prunetui.engine.cpu.backend import backend_for
from prunetui.engine.decode.bandwidth import read_bandwidth
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.decode.prepared_lanes import PreparedLanes
from prunetui.engine.measure.reductions import reduce_logits
from prunetui.engine.measure.step_reduction import StepRequest
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.device import find_device
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.loading import load
from prunetui.engine.model.memory import keep_freed_memory
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Context, Options
from prunetui.engine.session.history import TokenHistory
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.records import Sampling
from prunetui.engine.variants.builder import open_builder
from prunetui.engine.variants.recipes import parse
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tests.support.lockstep import install_lockstep
from tests.support.measures import numbers_and_tokens

from .stock_generate import generate_seconds

VARIANTS = ("drop:attn=4", "drop:attn=8", "drop:mlp=4", "drop:mlp=8")
SESSIONS: tuple[tuple[int, Context], ...] = ((1, "free"), (2, "free"), (5, "free"), (5, "both"))
"""Lane count and context of each session; in context both each variant has a second row."""
STEPS = 40
ROUNDS = 3
VOCABULARIES = (49152, 262144)
CONTEXTS = (100, 1000, 2000)
"""Prompt lengths, in tokens."""
BODY: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}
"""Config of SmolLM2-135M, the demo model."""
GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, seed=0, max_new_tokens=1, ignore_eos=False)


def decoding(dtype: str) -> None:
    options = Options(dtype=dtype, max_new_tokens=STEPS, ignore_eos=True)  # pyright: ignore[reportArgumentType]
    loaded = load(options, _silent)
    template: Any = loaded.tokenizer.apply_chat_template
    prompt = template(
        [{"role": "user", "content": options.prompt}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    ).to(loaded.model.device)
    generate: list[float] = []
    steps: dict[tuple[int, Context], list[float]] = {opened: [] for opened in SESSIONS}
    forward: dict[tuple[int, Context], list[float]] = {opened: [] for opened in SESSIONS}
    read = {}
    # Interleaved, so that a machine that slows down slows all of them.
    for _ in range(ROUNDS):
        generate += generate_seconds(loaded.model, prompt["input_ids"], STEPS)
        for opened in SESSIONS:
            with _timed(TokenHistory, "outputs_before", forward[opened]):
                seconds, read[opened] = _lockstep(dtype, *opened)
            steps[opened] += seconds
    alone = median(generate)
    bandwidth = read_bandwidth(loaded.model.device, loaded.model.dtype)
    print(f"  model.generate    {alone * 1e3:6.1f} ms")
    for (count, context), seconds in steps.items():
        opened = count, context
        step, limit = median(seconds), read[opened] / bandwidth
        name = f"{count} lane{'s' if count > 1 else ''}, {context}"
        print(f"  {name:<18}{step * 1e3:6.1f} ms", end="")
        print(f"   {step / alone:.2f} × generate, {limit / step:.2f} of the physical limit", end="")
        print(f" ({read[opened] / 1e6:.0f} MB), numbers {1 - median(forward[opened]) / step:.3f}")
    print("  the limit: the weights and caches that a step reads, at the", end="")
    print(f" {bandwidth / 1e9:.1f} GB/s that were measured;")
    print("  numbers: all but the forward pass, records and texts included, over the step")


def context_growth(dtype: str) -> None:
    """Seconds per step after longer prompts, with equal or other tokens in each lane."""
    options = Options(dtype=dtype, variants=VARIANTS)  # pyright: ignore[reportArgumentType]
    builder = open_builder(options, _silent)
    variants, _ = builder.build_lanes([parse(recipe) for recipe in VARIANTS])
    generate: dict[int, list[float]] = {length: [] for length in CONTEXTS}
    five: dict[tuple[int, int], list[float]] = {
        (length, apart): [] for length in CONTEXTS for apart in (0, 7)
    }
    for _ in range(2):
        for length in CONTEXTS:
            tokens = torch.arange(length, device=builder.loaded.model.device)[None] % 1000 + 100
            generate[length] += generate_seconds(builder.loaded.model, tokens, STEPS)
        lanes = PreparedLanes(variants, "free", [*range(100, 110)], _silent)
        for (length, apart), seconds in five.items():
            begins = apart * torch.arange(len(variants))[:, None]
            outputs = lanes.lockstep.prefill((torch.arange(length) + begins) % 1000 + 100)
            token = outputs.z.argmax(dim=-1)[:, None]
            seconds += _seconds(lambda of=lanes.lockstep, t=token: _finish(of.advance(t)))
        lanes.remove()
    one, all_five = (
        {key: median(seconds) for key, seconds in each.items()} for each in (generate, five)
    )
    first = CONTEXTS[0]
    for length in CONTEXTS:
        print(f"  {length:5} tokens   generate {one[length] * 1e3:5.1f} ms", end="")
        for apart, which in ((0, "of the same text"), (7, "of texts apart")):
            seconds = all_five[length, apart]
            print(f"   5 lanes {which} {seconds * 1e3:5.1f} ms", end="")
            grown = seconds - all_five[first, apart], one[length] - one[first]
            if length > first:
                print(f", grown by {grown[0] / grown[1]:.2f} × generate's", end="")
        print()


def large_vocabulary(dtype: str) -> None:
    """Seconds per step of the demo model's body with a vocabulary of 262,144 tokens.

    They are bfloat16's, as those of most checkpoints.
    """
    keep_freed_memory()
    vocabulary = VOCABULARIES[-1]
    config = LlamaConfig(**BODY, vocab_size=vocabulary, tie_word_embeddings=True)
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config).bfloat16()
    model.to_empty(device=find_device("auto"))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.to(getattr(torch, dtype))
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(model.device)
    model.eval().requires_grad_(False)
    request = StepRequest(lanes=5, candidates=10, answers=torch.tensor([1, 2, 3, 4]))
    forward, numbers = [], []
    with _five_lanes(model) as lockstep, torch.inference_mode():
        outputs = lockstep.prefill(torch.arange(100).repeat(5, 1))
        for step in range(STEPS):
            began = time.perf_counter()
            _, chosen = numbers_and_tokens(outputs, GREEDY, step, request)
            measured = time.perf_counter()
            outputs = lockstep.advance(chosen[:, None])
            _finish(outputs)
            numbers.append(measured - began)
            forward.append(time.perf_counter() - measured)
    step = median(map(sum, zip(numbers, forward, strict=True)))
    print(f"  step of 5 lanes     {step * 1e3:6.1f} ms")
    print(f"  all its numbers     {median(numbers) * 1e3:6.1f} ms", end="")
    print(f"   {median(numbers) / step:.3f} of the step")


def measuring() -> None:
    """Seconds of a step's numbers for five lanes, over a float64 exp of as many logits."""
    keep_freed_memory()
    request = StepRequest(lanes=5, candidates=10, answers=torch.tensor([1, 2, 3, 4]))
    device = find_device("auto")
    for vocabulary in VOCABULARIES:
        z = torch.randn(5, vocabulary, device=device) * 3
        h, streams = torch.randn(5, 576, device=device), torch.randn(60, 5, 576, device=device)
        outputs = Outputs(h, z, streams)
        with torch.inference_mode():
            whole = _median_seconds(lambda o=outputs: numbers_and_tokens(o, GREEDY, 0, request))
            look = _median_seconds(lambda o=outputs: reduce_logits(o, 10, 1.0).sums.cpu())
            exp = _median_seconds(lambda z=z: z.double().exp_()[0, 0].item())
        print(
            f"  {vocabulary:7} tokens      {whole * 1e3:6.1f} ms   {whole / exp:.1f} × one exp in",
            end="",
        )
        print(f" float64; the look at the logits alone {look * 1e3:.1f} ms")


@contextmanager
def _timed(module: Any, name: str, seconds: list[float]) -> Iterator[None]:
    """Record the seconds of each call of a module's function."""
    function = getattr(module, name)

    def timed(*args: Any) -> Any:
        began = time.perf_counter()
        result = function(*args)
        seconds.append(time.perf_counter() - began)
        return result

    setattr(module, name, timed)
    yield
    setattr(module, name, function)


@contextmanager
def _five_lanes(model: PreTrainedModel) -> Iterator[Lockstep]:
    group = WeightGroup(model, find_anatomy(model))
    lanes = [Dropped(), *(Dropped(attention=frozenset({layer})) for layer in range(4))]
    rows = {model: len(lanes)}
    backend = backend_for(model.device, model.dtype)
    prepared = backend.prepare(rows) if backend else None
    if prepared:
        prepared.install()
    lockstep = install_lockstep([(group, gates) for gates in lanes])
    yield lockstep
    lockstep.remove()
    if prepared:
        prepared.remove()


def _silent(_what: str, _done: float | None) -> None:
    pass


def _median_seconds(run) -> float:
    return median(_seconds(run))


def _seconds(run) -> list[float]:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return times


def _finish(outputs: Outputs) -> None:
    """Wait until the device has finished all work."""
    outputs.z[0, 0].item()


def _lockstep(dtype: str, count: int, context: Context) -> tuple[list[float], int]:
    """Seconds of each step of a session, and bytes that the last step read."""
    options = Options(
        variants=VARIANTS[: count - 1],
        dtype=dtype,  # pyright: ignore[reportArgumentType]
        max_new_tokens=STEPS,
        context=context,
        ignore_eos=True,
    )
    opened = open_session(options, None, _silent)
    seconds = _steps(opened)
    opened.close()
    return seconds, opened.trace.steps[-1].read


def _steps(opened: Session) -> list[float]:
    while opened.finished is None:
        opened.step()
    # Step 0 chooses from the prompt's logits and needs no forward pass.
    return [step.seconds for step in opened.trace.steps[1:]]
