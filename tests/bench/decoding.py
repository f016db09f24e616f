"""Steps of one, two and five lanes against `model.generate`, in the same run."""

import itertools
import time
from statistics import median

import torch
from prunetui.engine.loading import Loaded, load
from prunetui.engine.options import Options
from prunetui.engine.session import open_session

VARIANTS = ("drop:attn=4", "drop:attn=8", "drop:mlp=4", "drop:mlp=8")
STEPS = 40
ROUNDS = 3


def decoding() -> None:
    options = Options(max_new_tokens=STEPS, ignore_eos=True)
    loaded = load(options, lambda *_: None)
    generate: list[float] = []
    lanes: dict[int, list[float]] = {1: [], 2: [], 5: []}
    # Interleaved, so that a machine that slows down slows all of them.
    for _ in range(ROUNDS):
        generate += _generate(loaded, options)
        for count, seconds in lanes.items():
            seconds += _lockstep(count)
    alone = median(generate)
    print(f"  model.generate      {alone * 1e3:6.1f} ms")
    for count, seconds in lanes.items():
        step = median(seconds)
        print(f"  {count} lane{'s' if count > 1 else ' '}             {step * 1e3:6.1f} ms", end="")
        print(f"   {step / alone:.2f} × generate")


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
    times = clock.times[1:]
    return [after - before for before, after in itertools.pairwise(times)]


def _lockstep(count: int) -> list[float]:
    variants = VARIANTS[: count - 1]
    session = open_session(
        Options(variants=variants, max_new_tokens=STEPS, ignore_eos=True), None, lambda *_: None
    )
    while session.finished is None:
        session.step()
    session.close()
    # Step 0 chooses from the prompt's logits and needs no forward pass.
    return [step.seconds for step in session.trace.steps[1:]]
