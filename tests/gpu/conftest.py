"""Devices of the tests that a GPU must pass: CUDA if there is one, and the CPU in every run.

`[cuda]` is marked `gpu`, which `make bench-gpu` runs. The CPU is taken for a GPU, so that the same
tests find their own mistakes where there is none. For that, the first of a test's parameters are
enough; the others are marked `slow` there.
"""

from pathlib import Path

import pytest
import torch

from ..support.models import save_model_directory
from ..support.pretended_graphs import pretend_graphs

HERE = Path(__file__).parent
CUDA_AND_CPU = [pytest.param("cuda", marks=pytest.mark.gpu), "cpu"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tried: set[object] = set()
    for item in items:
        if isinstance(item, pytest.Function) and item.path.parent == HERE and "cpu" in item.name:
            if item.function in tried:
                item.add_marker(pytest.mark.slow)
            tried.add(item.function)


@pytest.fixture(params=CUDA_AND_CPU)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the device that decodes."""
    if request.param == "cpu":
        pretend_graphs(monkeypatch)
    elif not torch.cuda.is_available():
        pytest.skip("there is no GPU that torch can use")
    return request.param


@pytest.fixture(params=CUDA_AND_CPU)
def two_devices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Names of two devices; the CPU stands for both."""
    if request.param == "cpu":
        pretend_graphs(monkeypatch)
        return "cpu", "cpu"
    if torch.cuda.device_count() < 2:
        pytest.skip("there are no two GPUs that torch can use")
    return "cuda:0", "cuda:1"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories of tiny random models by family: some with a step of their own, some without."""
    folder = tmp_path_factory.mktemp("models")
    return {
        family: save_model_directory(folder / family, family)
        for family in ("llama", "qwen3", "gemma3_text", "gpt2")
    }
