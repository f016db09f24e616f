"""What dropping by each ranking costs the demo on held-out text: mean KL(p‖q) in nats.

`python -m tests.bench.rankings` measures it: minutes, as KL reads the samples once for each
sublayer. It is no part of `make bench`.
"""

from pathlib import Path

from prunetui.engine.options import Options
from prunetui.engine.variants.builder import open_builder
from prunetui.engine.variants.calibration import Calibration
from prunetui.engine.variants.pruning.kl_importance import measure_kl
from prunetui.engine.variants.recipes import parse

HELD_OUT = Path(__file__).parents[1] / "data" / "held_out.txt"
SAMPLES = 2
"""Calibration samples of 256 tokens that both rankings are measured on."""
DROPS = ("drop:attn=8", "drop:mlp=2")
RANKINGS = ("", ",iterative", ",by=kl", ",by=kl,iterative")


def compare_rankings() -> None:
    """Print the sublayers that each recipe drops, and their KL on the held-out text."""
    builder = open_builder(Options(calibration_samples=SAMPLES), lambda *_: None)
    held_out = Calibration(builder.loaded, Options(calibration=str(HELD_OUT)), lambda *_: None)
    print(f"{builder.calibration.tokens} tokens ranked, {held_out.tokens} held out (demo, float32)")
    for drop in DROPS:
        for ranking in RANKINGS:
            lane = builder.build(parse(drop + ranking))
            baseline = builder.baseline
            (kl,) = measure_kl(
                baseline, baseline, [lane.dropped], held_out.windows(), lambda _: None
            )
            attention, mlp = lane.dropped.lists
            layers = " ".join(map(str, attention + mlp))
            print(f"{drop + ranking:28}  {layers:22}  {kl or float('nan'):.3f} nats", flush=True)


if __name__ == "__main__":
    compare_rankings()
