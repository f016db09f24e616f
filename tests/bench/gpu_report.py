"""The lines that the GPU's benchmark prints: measurements as ratios of one run, and targets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .gpu_results import Generate, Loading, Result, Rows, Timing, Way

EAGER_TARGET, GRAPH_TARGET, FUSED_TARGET = 0.50, 0.58, 0.70
"""Least share of the bandwidth floor in a step's time."""
GENERATE_TARGET = 1.35
"""Most steps of compiled `generate` of one model in a step of the lanes."""
PAINTING_TARGET = 1.3
"""Most medians in the 95th percentile while a thread paints."""

NO_RESULT = "no process gave a result"

Results = Mapping[tuple[str, str], Result]
"""Results by the name of the shape and that of the job."""


def result_lines(result: Result, generate: Generate | None) -> list[str]:
    """Lines of one process's measurements; `generate` is that of the same shape."""
    if isinstance(result, Rows):
        return _rows_lines(result, generate)
    if isinstance(result, Generate):
        return _generate_lines(result)
    return [f"loaded from a folder in the page cache in {result.seconds:.1f} s: {_loading(result)}"]


def _loading(result: Loading) -> str:
    rate = result.bytes / result.seconds / 1e9
    return f"{result.bytes / 1e9:.1f} GB, {rate:.1f} GB/s, the reference logits included"


def _rows_lines(rows: Rows, generate: Generate | None) -> list[str]:
    floor = rows.graph.plain.read / rows.bandwidth
    lines = [
        f"floor {_ms(floor)}: {rows.graph.plain.read / 1e9:.2f} GB at {rows.bandwidth / 1e9:.0f} "
        "GB/s, as measured"
    ]
    if rows.refusal:
        lines.append(f"NO GRAPH WAS CAPTURED, its lines are of eager steps: {rows.refusal}")
    for name, timing in _timings(rows).items():
        lines.append(f"{name:<21}{_timing(timing)}, {_floor(timing, rows):.2f} of the floor")
        if generate and name in ("graph", "eager"):
            lines[-1] += f", {timing.median / generate.dynamic.median:.2f} × generate"
            if generate.static:
                lines[-1] += f", {timing.median / generate.static.median:.2f} × static"
    for name, way in _ways(rows).items():
        kernels = way.kernels
        lines.append(
            f"{name:<21}{kernels.per_step:.0f} kernels and copies a step, busy "
            f"{_ms(kernels.busy)}; cuDNN: {', '.join(kernels.cudnn) or 'none'}; "
            f"host waits in the forward part: {way.host_wait or 'none'}"
        )
    lines.append(f"graph and eager      {_equal(rows.differences)}")
    if rows.rows > 1:
        lines.append(f"control lane         {_equal(rows.control)}")
    needed = rows.weights + rows.caches
    lines.append(
        f"memory               at most {rows.peak / 1e9:.2f} GB, {rows.peak / needed:.2f} × "
        f"weights ({rows.weights / 1e9:.2f} GB) and caches ({rows.caches / 1e9:.2f} GB)"
    )
    return lines + [f"note: {note}" for note in rows.notes]


def _timings(rows: Rows) -> dict[str, Timing]:
    return {
        "graph": rows.graph.plain,
        "graph, painting": rows.graph.painting,
        "graph, unfused": rows.unfused,
        "eager": rows.eager.plain,
        "eager, painting": rows.eager.painting,
        "eager, cuDNN allowed": rows.cudnn,
    }


def _ways(rows: Rows) -> dict[str, Way]:
    return {"graph": rows.graph, "eager": rows.eager}


def _generate_lines(result: Generate) -> list[str]:
    lines = [
        f"generate             {_timing(result.dynamic)}",
        f"  cuDNN allowed      {_timing(result.cudnn)}",
    ]
    if result.static is None:
        return [*lines, f"generate, static     failed: {result.error}"]
    how = "compiled" if result.compiled else "NOT COMPILED by transformers"
    return [
        *lines,
        f"generate, static     {_timing(result.static)}, {how}, first call "
        f"{result.first_call:.1f} s",
    ]


def _equal(differences: list[str]) -> str:
    return f"DIFFER in {', '.join(differences)}" if differences else "equal to the bit"


def _timing(timing: Timing) -> str:
    text = f"{_ms(timing.median)}, p95 {_ms(timing.p95)}, longest {_ms(timing.longest)}"
    return text + (f", GPU {_ms(timing.gpu)}" if timing.gpu else "")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _floor(timing: Timing, rows: Rows) -> float:
    """The share that reading weights and caches at the measured bandwidth has in a step."""
    return timing.read / rows.bandwidth / timing.median


# -- targets --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """One target: whether it is met, None if it was not measured, and what was found."""

    what: str
    met: bool | None
    found: str

    @property
    def line(self) -> str:
        verdict = {True: "met", False: "NOT MET", None: "NOT MEASURED"}[self.met]
        return f"{verdict:<14}{self.what}: {self.found}"


def targets(results: Results, shape: str) -> list[Target]:
    """All targets; those on time are of nine rows of the shape, the others of all that ran."""
    nine, generate = results.get((shape, "9")), results.get((shape, "generate"))
    rows = nine if isinstance(nine, Rows) else None
    of = f"({shape}, 9 rows)"

    def least(what: str, value: Callable[[Rows], float], bound: float, *, graph: bool) -> Target:
        what = f"{what} at least {bound:.2f} of the floor {of}"
        return _judge(what, rows, value, lambda share: share >= bound, graph=graph)

    return [
        least("eager", lambda r: _floor(r.eager.plain, r), EAGER_TARGET, graph=False),
        least(
            "graph without fused products", lambda r: _floor(r.unfused, r), GRAPH_TARGET, graph=True
        ),
        least(
            "graph with fused products",
            lambda r: _floor(r.graph.plain, r),
            FUSED_TARGET,
            graph=True,
        ),
        _against_generate(rows, generate if isinstance(generate, Generate) else None, of),
        _judge(
            f"p95 at most {PAINTING_TARGET} × the median while a thread paints {of}",
            rows,
            lambda r: r.graph.painting.p95 / r.graph.painting.median,
            lambda ratio: ratio <= PAINTING_TARGET,
            graph=True,
        ),
        *_exact_targets(results),
    ]


def _against_generate(rows: Rows | None, generate: Generate | None, of: str) -> Target:
    what = f"graph at most {GENERATE_TARGET} × compiled generate of one model {of}"
    if generate is None:
        return Target(what, None, NO_RESULT)
    static = generate.static
    if static is None or not generate.compiled:
        return Target(what, None, generate.error or "transformers did not compile it")
    return _judge(
        what,
        rows,
        lambda r: r.graph.plain.median / static.median,
        lambda ratio: ratio <= GENERATE_TARGET,
        graph=True,
    )


def _judge(
    what: str,
    rows: Rows | None,
    value: Callable[[Rows], float],
    meets: Callable[[float], bool],
    *,
    graph: bool,
) -> Target:
    if rows is None:
        return Target(what, None, NO_RESULT)
    if graph and rows.refusal:
        return Target(what, False, "no graph was captured")
    number = value(rows)
    return Target(what, meets(number), f"{number:.2f}")


def _exact_targets(results: Results) -> list[Target]:
    """Targets that every process must meet, with the processes that do not."""
    rows = {key: result for key, result in results.items() if isinstance(result, Rows)}
    faults: dict[str, Callable[[Rows], list[str]]] = {
        "a control lane equal to the baseline to the bit": lambda r: r.control,
        "graph and eager equal to the bit": _graph_faults,
        "no host wait in the forward part of a step": lambda r: [
            way.host_wait for way in _ways(r).values() if way.host_wait
        ],
        "no kernel of cuDNN": _kernel_faults,
    }
    found = []
    for what, faults_of in faults.items():
        # One row has no control.
        asked = {key: r for key, r in rows.items() if r.rows > 1 or "control" not in what}
        failed = [
            f"{shape}, {job} rows: {', '.join(said)}"
            for (shape, job), r in asked.items()
            if (said := faults_of(r))
        ]
        text = "; ".join(failed) or (f"in {len(asked)} processes" if asked else NO_RESULT)
        found.append(Target(what, not failed if asked else None, text))
    return found


def _graph_faults(rows: Rows) -> list[str]:
    return [*rows.differences, *(["no graph was captured"] if rows.refusal else [])]


def _kernel_faults(rows: Rows) -> list[str]:
    kernels = [way.kernels for way in _ways(rows).values()]
    unseen = [] if all(seen.per_step for seen in kernels) else ["the profiler saw no kernel"]
    return [*(name for seen in kernels for name in seen.cudnn), *unseen]
