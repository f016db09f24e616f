"""What a step computes on a CPU, compiled when it is first needed."""

from llvmlite import binding
from numba.core import config

_features = binding.get_host_cpu_features()
if _features.get("avx512f"):
    # The compiler halves a processor's widest vectors, for the sake of what runs beside it.
    config.CPU_FEATURES = f"{_features.flatten()},-prefer-256-bit"  # pyright: ignore[reportAttributeAccessIssue]
