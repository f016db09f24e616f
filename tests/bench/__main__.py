"""Run every benchmark and print a table of each."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from .decoding import decoding, measuring
from .terminal import first_frame, traffic

for dtype in ("float32", "bfloat16"):
    print(
        f"decoding: a step of n lanes over a step of model.generate (demo model, greedy, {dtype})"
    )
    decoding(dtype)
print("\nmeasuring: all numbers of a step of five lanes (random logits)")
measuring()
print("\nfirst frame: from the start of the process, through a pty at 120×40")
first_frame()
for view, keys in (("overview", ""), ("view 1", "1")):
    print(f"\ntraffic: bytes written while decoding in the {view}, through a pty at 120×40")
    traffic(keys)
