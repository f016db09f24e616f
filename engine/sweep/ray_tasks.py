"""Jobs of a sweep as plain Ray tasks, on this machine or on a cluster."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..errors import OptionError, UserError
from .folder import job_file
from .jobs import Job
from .run import Watcher, end_job
from .worker import EVALUATE, Order, run_job

log = logging.getLogger(__name__)

RETRIES = 2
"""Times that a job whose worker died is tried again, elsewhere if need be."""


def check_ray(jobs: Sequence[Job]) -> None:
    """Raise `UserError` if Ray is not installed, or cannot place the jobs."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError as error:
        raise UserError(
            "--ray needs Ray, which is not installed: pip install 'prunetui[ray]'"
        ) from error
    for job in jobs:
        if job.options.device_map is not None or ":" in job.options.device:
            raise OptionError(
                "with --ray each job gets a GPU of its own; leave --device-map and the number "
                "behind --device out"
            )


def run_with_ray(
    jobs: Sequence[Job], directory: Path, address: str | None, watcher: Watcher
) -> None:
    """Run jobs at once, as many as Ray has room for, into a folder that all its machines share.

    A worker that dies costs its job only. Raises `UserError` if Ray cannot be started or reached.
    """
    import ray  # pyright: ignore[reportMissingImports]

    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None and "RAY_ADDRESS" not in os.environ:
        # Nothing but jobs and sentences goes through the store.
        settings |= {"include_dashboard": False, "object_store_memory": 100_000_000}
    try:
        ray.init(address=address, **settings)
    # Ray's errors are of many types, those of its dependencies among them.
    except Exception as error:
        raise UserError(
            f"Ray cannot be reached at {address or 'this machine'} ({error})"
        ) from error
    try:
        gpus = ray.cluster_resources().get("GPU", 0)
        task: Any = ray.remote(max_calls=1, max_retries=RETRIES)(_run)
        running: dict[Any, Job] = {}
        for job in jobs:
            watcher.begin(job)
            device = job.options.device
            order = Order(job, str(directory.resolve()), EVALUATE)
            own = task.options(
                name=job.description,
                num_cpus=job.options.threads or 1,
                num_gpus=int(device == "cuda" or (device == "auto" and gpus > 0)),
            )
            running[own.remote(msgspec.json.encode(order))] = job
        while running:
            (done,), _ = ray.wait([*running], num_returns=1)
            job = running.pop(done)
            end_job(job, directory, _answer(done, job_file(directory, job)), watcher)
    finally:
        ray.shutdown()


def _run(order: bytes) -> str | None:
    """Evaluate a job, which comes as JSON, in a Ray worker; return a sentence if that failed."""
    return run_job(msgspec.json.decode(order, type=Order), lambda *_: None)


def _answer(reference: Any, file: Path) -> str | None:
    """Sentence of a task that has ended, None if its file is there."""
    import ray  # pyright: ignore[reportMissingImports]
    import ray.exceptions  # pyright: ignore[reportMissingImports]

    try:
        error: Any = ray.get(reference)
    except ray.exceptions.RayTaskError as wrong:
        log.error("%s", wrong)
        return "something went wrong in prunetui itself; the log has the details"
    except ray.exceptions.RayError as lost:
        return f"its Ray worker died {RETRIES + 1} times ({str(lost).strip().splitlines()[0]})"
    if error is None and not file.exists():
        return f"its worker wrote {file} on another machine; -o must name a folder that all share"
    return error
