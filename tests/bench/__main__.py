"""Run every benchmark and print a table of each."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from .decoding import decoding
from .terminal import first_frame, traffic

print("decoding: a step of n lanes over a step of model.generate alone (demo model, greedy)")
decoding()
print("\nfirst frame: from the start of the process, through a pty at 120×40")
first_frame()
print("\ntraffic: bytes written to the terminal while decoding, through a pty at 120×40")
traffic()
