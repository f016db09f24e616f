"""Steps of one, two and five lanes against `model.generate`, in the same run."""

import itertools
import time
from statistics import median

import torch
from prunetui.engine.drift import Distributions, measure
from prunetui.engine.loading import Loaded, load
from prunetui.engine.lockstep import Outputs
from prunetui.engine.memory import keep_freed_memory
from prunetui.engine.numbers import Wanted, step_numbers
from prunetui.engine.options import Options
from prunetui.engine.session import open_session
from prunetui.engine.trace.records import Sampling

VARIANTS = ("drop:attn=4", "drop:attn=8", "drop:mlp=4", "drop:mlp=8")
STEPS = 40
ROUNDS = 3
VOCABULARIES = (49152, 262144)


def decoding(dtype: str) -> None:
    options = Options(dtype=dtype, max_new_tokens=STEPS, ignore_eos=True)  # pyright: ignore[reportArgumentType]
    loaded = load(options, lambda *_: None)
    generate: list[float] = []
    lanes: dict[int, list[float]] = {1: [], 2: [], 5: []}
    # Interleaved, so that a machine that slows down slows all of them.
    for _ in range(ROUNDS):
        generate += _generate(loaded, options)
        for count, seconds in lanes.items():
            seconds += _lockstep(dtype, count)
    alone, read = median(generate), _read_seconds(loaded)
    print(f"  model.generate      {alone * 1e3:6.1f} ms")
    for count, seconds in lanes.items():
        step = median(seconds)
        print(f"  {count} lane{'s' if count > 1 else ' '}             {step * 1e3:6.1f} ms", end="")
        print(f"   {step / alone:.2f} × generate, {read / step:.2f} of the physical limit")
    print(f"  reading the weights {read * 1e3:6.1f} ms, the limit: their bytes at the measured")
    print("                                read bandwidth")


def measuring() -> None:
    """All of a step's numbers for five lanes, over one exp of as many logits in float64."""
    keep_freed_memory()
    sampling = Sampling(
        temperature=0.0, top_k=0, top_p=1.0, seed=0, max_new_tokens=1, ignore_eos=False
    )
    wanted = Wanted(lanes=5, candidates=10, answers=[1, 2, 3, 4])
    for vocabulary in VOCABULARIES:
        z = torch.randn(5, vocabulary) * 3
        outputs = Outputs(torch.randn(5, 576), z, torch.randn(60, 5, 576))
        with torch.inference_mode():
            whole = _median_seconds(lambda o=outputs: step_numbers(o, sampling, 0, wanted, {}))
            drift = _median_seconds(lambda o=outputs: measure(o.h, Distributions.of(o.z, 1.0)))
            exp = _median_seconds(lambda z=z: z.double().exp_())
        print(
            f"  {vocabulary:7} tokens      {whole * 1e3:6.1f} ms   {whole / exp:.1f} × one exp in",
            end="",
        )
        print(f" float64; drift alone {drift * 1e3:.1f} ms")


def _median_seconds(run) -> float:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return median(times)


def _read_seconds(loaded: Loaded) -> float:
    """Reading every weight once, at the bandwidth at which a sum reads 512 MiB."""
    block = torch.ones(128 << 20)
    bandwidth = block.numel() * block.element_size() / _median_seconds(block.sum)
    return sum(p.numel() * p.element_size() for p in loaded.model.parameters()) / bandwidth


def _generate(loaded: Loaded, options: Options) -> list[float]:
    """Seconds of each step, by the times at which `generate` hands out tokens."""

    class Clock:
        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, _tokens: torch.Tensor) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    prompt = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": options.prompt}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    clock = Clock()
    loaded.model.generate(
        **prompt, do_sample=False, min_new_tokens=STEPS, max_new_tokens=STEPS, streamer=clock
    )
    # The first put is the prompt, the second follows the prefill.
    return [after - before for before, after in itertools.pairwise(clock.times[1:])]


def _lockstep(dtype: str, count: int) -> list[float]:
    options = Options(
        variants=VARIANTS[: count - 1],
        dtype=dtype,  # pyright: ignore[reportArgumentType]
        max_new_tokens=STEPS,
        context="free",
        ignore_eos=True,
    )
    session = open_session(options, None, lambda *_: None)
    while session.finished is None:
        session.step()
    session.close()
    # Step 0 chooses from the prompt's logits and needs no forward pass.
    return [step.seconds for step in session.trace.steps[1:]]
