"""What one process of the GPU's benchmark measures, as it is handed to the process that prints."""

import msgspec


class Timing(msgspec.Struct):
    """Seconds of the steps of a session, or of `generate`."""

    median: float
    p95: float
    longest: float
    gpu: float = 0.0
    """Median seconds from the first kernel of a step's forward part to the end of its last, by the
    GPU's own clock; waits for the host in between count."""
    read: int = 0
    """Bytes of weights and filled caches that a step must read, in the middle of them."""


class Kernels(msgspec.Struct):
    """What a profiler saw of a few steps."""

    per_step: float
    """Kernels and copies."""
    busy: float
    """Seconds a step that they ran for together."""
    cudnn: list[str]
    """Names with `cudnn` in them."""


class Way(msgspec.Struct):
    """One way to take a step: as a captured graph or launched kernel by kernel."""

    plain: Timing
    painting: Timing
    """While a thread paints."""
    kernels: Kernels
    host_wait: str | None
    """Error of the first operation in the forward part that made the host wait; None without."""


class Rows(msgspec.Struct, tag=True):
    """Sessions of one number of rows."""

    rows: int
    bandwidth: float
    """Bytes a second."""
    refusal: str | None
    """Why no graph was captured; None if one was."""
    graph: Way
    eager: Way
    unfused: Timing
    """The graph without fused products."""
    cudnn: Timing
    """The eager step with cuDNN's attention allowed."""
    differences: list[str]
    """What differs between the graph and the eager step, in any bit."""
    control: list[str]
    """What differs between the control lane and the baseline; nothing for one row."""
    weights: int
    caches: int
    peak: int
    """Most bytes allocated while the session was opened and decoded."""
    notes: list[str]
    """The header's notes."""


class Generate(msgspec.Struct, tag=True):
    """transformers' `generate` of the model alone."""

    dynamic: Timing
    cudnn: Timing
    """With cuDNN's attention allowed."""
    static: Timing | None
    """With `cache_implementation="static"`; None if it failed."""
    compiled: bool
    """Whether transformers compiled it."""
    first_call: float
    """Seconds of the first call with the static cache, which compiles."""
    error: str
    """Why there is no `static`."""


class Loading(msgspec.Struct, tag=True):
    """The model loaded from a folder."""

    seconds: float
    bytes: int


Result = Rows | Generate | Loading
