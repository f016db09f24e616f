"""Run every benchmark and print a table of each."""

import os

from prunetui.tui.cli.main import SPINS

os.environ["HF_HUB_OFFLINE"] = "1"
# As the command line does.
os.environ["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT", SPINS)

from .blame import blaming
from .decoding import context_growth, decoding, large_vocabulary, measuring
from .evaluation import rating, writing
from .loading import loading
from .memory import long_run, memory
from .sharing import sharing
from .terminal import first_frame, key_to_paint, long_trace, traffic

for dtype in ("float32", "bfloat16"):
    print(
        f"decoding: a step of n lanes over a step of model.generate (demo model, greedy, {dtype})"
    )
    decoding(dtype)
for dtype in ("float32", "bfloat16"):
    print(f"\ncontext: a step behind prompts of that many tokens (demo model, {dtype})")
    context_growth(dtype)
print("\nmeasuring: all numbers of a step of five lanes (random logits)")
measuring()
for dtype in ("float32", "bfloat16"):
    print(
        "\nlarge vocabulary: a step of five lanes with 262,144 tokens "
        f"(the demo's body, random bfloat16 weights, {dtype})"
    )
    large_vocabulary(dtype)
print("\nloading: the proof that what decodes is the model (demo model, five lanes, float32)")
loading()
print("\nsharing: a step of two sessions at once over one alone (demo, five lanes, float32)")
sharing()
print(
    "\nevaluation: options rated in five lanes over lm-eval's run of one model "
    "(demo tasks, batches of 8, float32)"
)
rating("float32")
print("\nevaluation: sums written in five lanes, over lm-eval's run of one model (as above)")
writing("float32")
for dtype in ("float32", "bfloat16"):
    print(
        "\nblame: each of eight dropped sublayers given back and pruned alone, after 160 tokens "
        f"(demo model, {dtype})"
    )
    blaming(dtype)
print("\nmemory: what lanes add, each in a process of its own (float32)")
memory()
print("\nlong run: five lanes of a tiny model, resident")
long_run()
print("\nfirst frame: from the start of the process, through a pty at 120×40")
first_frame()
for view, keys in (("overview", ""), ("view 1", "1")):
    print(f"\ntraffic: bytes written while decoding in the {view}, through a pty at 120×40")
    traffic(keys)
print("\nkey to paint: another lane selected while the demo decodes, through a pty at 120×40")
key_to_paint()
print("\nlong trace: a replay of 4,000 steps of five lanes, through a pty at 120×40")
long_trace()
