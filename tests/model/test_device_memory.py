"""A model that a GPU has no room for, and a GPU that cannot be used: the sentences, and who is
asked. The GPUs are numbers."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prunetui.engine.errors import OptionError, UserError
from prunetui.engine.model import device as device_module
from prunetui.engine.model import loading, pretrained
from prunetui.engine.model.checkpoint_files import read_checkpoint_files
from prunetui.engine.model.device import devices_in_use, find_device, gpu_indices, why_no_gpu
from prunetui.engine.model.device_memory import (
    Card,
    Need,
    cards,
    does_not_fit,
    lack_of_memory,
    weights_to_load,
)
from prunetui.engine.model.memory import memory_in_use
from prunetui.engine.options import Options
from prunetui.engine.session.session import Session, open_session
from torch import nn

from ..support.models import save_model_directory

GB = 10**9
FULL = "CUDA out of memory"


def card(index: int, free: float, total: float = 24) -> Card:
    return Card(f"cuda:{index}", int(free * GB), int(total * GB))


def need(weights: float, dtype: torch.dtype | None, beside: float = 0) -> Need:
    return Need(int(weights * GB), dtype, int(beside * GB))


@pytest.mark.parametrize(
    ("needed", "places", "others", "end"),
    [
        (
            need(29, torch.float32),
            [card(0, 22)],
            [],
            "memory of cuda:0: its weights need 29.0 GB in float32; cuda:0 has 22.0 GB of 24.0 GB "
            "free; --dtype bfloat16 needs half",
        ),
        (
            need(14.5, torch.bfloat16),
            [card(0, 3)],
            [card(1, 23), card(2, 9)],
            "memory of cuda:0: its weights need 14.5 GB in bfloat16; cuda:0 has 3.0 GB of 24.0 GB "
            "free; cuda:1 has 23.0 GB of 24.0 GB free; cuda:2 has 9.0 GB of 24.0 GB free; "
            "--device cuda:1 has room or --device-map auto spreads it over all GPUs",
        ),
        (
            need(14.5, torch.bfloat16),
            [card(0, 9)],
            [card(1, 9)],
            "memory of cuda:0: its weights need 14.5 GB in bfloat16; cuda:0 has 9.0 GB of 24.0 GB "
            "free; cuda:1 has 9.0 GB of 24.0 GB free; --device-map auto spreads it over all GPUs",
        ),
        (
            need(29, torch.float32),
            [card(0, 3)],
            [card(1, 17)],
            "memory of cuda:0: its weights need 29.0 GB in float32; cuda:0 has 3.0 GB of 24.0 GB "
            "free; cuda:1 has 17.0 GB of 24.0 GB free; --dtype bfloat16 needs half, for which "
            "--device cuda:1 has room",
        ),
        (
            need(29, torch.float32),
            [card(0, 9)],
            [card(1, 9)],
            "memory of cuda:0: its weights need 29.0 GB in float32; cuda:0 has 9.0 GB of 24.0 GB "
            "free; cuda:1 has 9.0 GB of 24.0 GB free; --dtype bfloat16 needs half, which "
            "--device-map auto spreads over all GPUs",
        ),
        (
            need(140, torch.bfloat16),
            [card(0, 23), card(1, 23)],
            [],
            "memory of cuda:0 and cuda:1: its weights need 140.0 GB in bfloat16; cuda:0 has 23.0 "
            "GB of 24.0 GB free; cuda:1 has 23.0 GB of 24.0 GB free; only a smaller model fits",
        ),
        (
            # A variant: on another card the baseline has to be, too.
            need(14.5, torch.bfloat16, beside=14.5),
            [card(0, 8)],
            [card(1, 23), card(2, 79, 80)],
            "memory of cuda:0: its weights need 14.5 GB in bfloat16, beside 14.5 GB of the models "
            "before it; cuda:0 has 8.0 GB of 24.0 GB free; cuda:1 has 23.0 GB of 24.0 GB free; "
            "cuda:2 has 79.0 GB of 80.0 GB free; --device cuda:2 has room or --device-map auto "
            "spreads it over all GPUs",
        ),
        (
            # Quantized weights stay as they are stored.
            need(5, None),
            [card(0, 4, 6)],
            [],
            "memory of cuda:0: its weights need 5.0 GB; cuda:0 has 4.0 GB of 6.0 GB free; only a "
            "smaller model fits",
        ),
        (
            need(29, torch.float32),
            [],
            [],
            "memory: its weights need 29.0 GB in float32; --dtype bfloat16 needs half",
        ),
        (
            need(14.5, torch.bfloat16),
            [],
            [],
            "memory: its weights need 14.5 GB in bfloat16; only a smaller model fits",
        ),
    ],
)
def test_what_is_needed_what_is_free_and_what_fits(
    needed: Need, places: list[Card], others: list[Card], end: str
) -> None:
    sentence = does_not_fit("big", needed, places, others)
    assert sentence.partition(" into ")[2].removeprefix("the ") == end
    assert sentence.startswith("big does not fit into ")


class Gpus:
    """GPUs that are pretended: of each the bytes free and in all; those asked are counted."""

    def __init__(self, monkeypatch, *memory: tuple[int, int]) -> None:
        self.allocated = [0] * len(memory)
        self.asked: list[object] = []
        self._memory = memory
        for name, function in {
            "is_available": lambda: bool(memory),
            "device_count": lambda: len(memory),
            "mem_get_info": self._mem_get_info,
            "memory_allocated": self._memory_allocated,
            "memory_reserved": lambda index: self.allocated[index],
            "get_device_properties": lambda index: SimpleNamespace(total_memory=memory[index][1]),
        }.items():
            monkeypatch.setattr(torch.cuda, name, function)

    def _mem_get_info(self, index: int) -> tuple[int, int]:
        free, total = self._memory[index]
        if not free:
            raise torch.AcceleratorError("CUDA error: out of memory")
        return free - self.allocated[index], total

    def _memory_allocated(self, device: int | torch.device) -> int:
        self.asked.append(device)
        return self.allocated[device if isinstance(device, int) else device.index]


def test_a_full_gpu_has_nothing_free(monkeypatch) -> None:
    gpus = Gpus(monkeypatch, (0, 24 * GB), (9 * GB, 24 * GB))
    gpus.allocated[1] = 2 * GB
    assert cards([0, 1]) == [card(0, 0), card(1, 7)]


def test_a_model_is_measured_by_its_files(tmp_path: Path) -> None:
    directory = save_model_directory(tmp_path / "tiny")
    files = read_checkpoint_files(directory, "tiny")
    size = (directory / "model.safetensors").stat().st_size
    stored = weights_to_load(files, None)
    assert size - 10_000 < stored < size
    assert files.dtype == torch.float32
    assert weights_to_load(files, torch.float32) == stored
    assert weights_to_load(files, torch.bfloat16) * 2 == stored


def test_what_is_free_is_asked_before_the_model_is_there(monkeypatch, tmp_path: Path) -> None:
    files = read_checkpoint_files(save_model_directory(tmp_path / "tiny"), "tiny")
    gpus = Gpus(monkeypatch, (3 * GB, 24 * GB), (20 * GB, 24 * GB))
    sentence = lack_of_memory("tiny", files, torch.float32, [0])
    gpus.allocated[0] = 3 * GB  # what was loaded until memory ran out
    assert "; cuda:0 has 3.0 GB of 24.0 GB free; cuda:1 has 20.0 GB of 24.0 GB free" in sentence()


@pytest.fixture
def no_room(monkeypatch) -> Callable[[Any], object]:
    """transformers, which has no memory for a model."""

    def from_pretrained(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError(FULL)

    def set_no_room() -> None:
        monkeypatch.setattr(
            pretrained, "AutoModelForCausalLM", SimpleNamespace(from_pretrained=from_pretrained)
        )

    return set_no_room  # pyright: ignore[reportReturnType]


def test_a_model_that_a_gpu_has_no_room_for_says_so(monkeypatch, no_room, tmp_path: Path) -> None:
    source = save_model_directory(tmp_path / "tiny")
    Gpus(monkeypatch, (GB // 10, 24 * GB), (20 * GB, 24 * GB))
    no_room()
    with pytest.raises(UserError) as raised:
        loading.load(Options(model=str(source), dtype="bfloat16"), lambda *_: None)
    assert str(raised.value) == (
        "tiny does not fit into the memory of cuda:0: its weights need 0.0 GB in bfloat16; cuda:0 "
        "has 0.1 GB of 24.0 GB free; cuda:1 has 20.0 GB of 24.0 GB free; --device cuda:1 has room "
        "or --device-map auto spreads it over all GPUs"
    )


def test_a_checkpoint_that_there_is_no_room_for_is_left_out(no_room, tmp_path: Path) -> None:
    source = save_model_directory(tmp_path / "tiny")
    session = opened(source)
    no_room()
    session.set_variants([f"big={source}", "drop:attn=[1]"])
    assert session.left_out == [
        "variant big is left out: tiny does not fit into memory: its weights need 0.0 GB in "
        "float32; --dtype bfloat16 needs half"
    ]
    assert [lane.name for lane in session.trace.header.lanes] == ["baseline", "drop:attn=[1]"]


def test_a_checkpoint_shares_what_equals_the_baselines(monkeypatch, tmp_path: Path) -> None:
    source = save_model_directory(tmp_path / "tiny")
    session = opened(source)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError(FULL)

    monkeypatch.setattr(loading, "share_tensors", full)
    session.set_variants([f"big={source}"])
    assert session.left_out == [
        "variant big is left out: tiny does not fit into memory: its weights need up to 0.0 GB in "
        "float32; --dtype bfloat16 needs half"
    ]


def opened(source: Path, **options: Any) -> Session:
    settings: dict[str, Any] = {"model": str(source), "variants": (), "prompt": "Hi"}
    settings |= {"max_new_tokens": 2, "ignore_eos": True}
    return open_session(Options(**(settings | options)), None, lambda *_: None)


# -- which GPUs are asked -------------------------------------------------------------------------


def test_a_step_asks_the_gpus_that_the_models_are_on(monkeypatch) -> None:
    gpus = Gpus(monkeypatch, *[(9 * GB, 24 * GB)] * 8)
    gpus.allocated[2:5] = [1, 10, 100]
    devices = [torch.device("cuda", 2), torch.device("cuda", 4)]
    assert memory_in_use(devices) == 101
    assert gpus.asked == devices
    assert memory_in_use([torch.device("cpu")]) > 10**6
    assert gpus.asked == devices


def test_devices_in_use_are_those_of_the_weights() -> None:
    two = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2, device="meta")])
    assert devices_in_use([two, two[1]]) == [torch.device("cpu"), torch.device("meta")]


def test_the_devices_are_found_once_for_a_trace(monkeypatch, tmp_path: Path) -> None:
    session = opened(save_model_directory(tmp_path / "tiny"))
    asked: list[object] = []

    def note(devices: object) -> int:
        asked.append(devices)
        return 5

    monkeypatch.setattr("prunetui.engine.session.step_builder.memory_in_use", note)
    steps = [session.step(), session.step()]
    assert [step.memory for step in steps] == [5, 5]
    assert asked[0] == [torch.device("cpu")]
    assert asked[1] is asked[0]


@pytest.mark.parametrize(
    ("device", "placement", "indices"),
    [
        ("cpu", None, []),
        ("cuda", {"": torch.device("cuda")}, [0]),
        ("cuda:1", {"": torch.device("cuda:1")}, [1]),
        ("cuda", "auto", [0, 1, 2]),
        ("cuda", {"a": 2, "b": "cpu", "c": "disk", "d": "cuda:0", "e": 2}, [0, 2]),
    ],
)
def test_the_gpus_of_a_placement(monkeypatch, device: str, placement: Any, indices: list) -> None:
    Gpus(monkeypatch, *[(9 * GB, 24 * GB)] * 3)
    assert gpu_indices(torch.device(device), placement) == indices


# -- GPUs that cannot be used ---------------------------------------------------------------------

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: http://www.nvidia.com"
)
NO_DRIVER = (
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed "
    "a driver from http://www.nvidia.com/Download/index.aspx"
)
NONE_SEEN = "No CUDA GPUs are available"
NOT_READY = (
    "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
    "NumCudaDevices() that might have already set an error? Error 802: system not yet initialized"
)


@pytest.fixture
def machine(monkeypatch, tmp_path: Path) -> Callable[..., None]:
    """A machine whose GPU torch cannot use: what torch says of it, and whether it has a driver."""

    def pretend(says: str | None, *, driver: bool, built: bool = True) -> None:
        def init() -> None:
            if says:
                raise RuntimeError(says)

        monkeypatch.setattr(device_module, "KERNEL_DRIVER", tmp_path if driver else tmp_path / "a")
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
        monkeypatch.setattr(torch.cuda, "init", init)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return pretend


@pytest.mark.parametrize(
    ("says", "driver", "why"),
    [
        (TOO_OLD, True, "The NVIDIA driver on your system is too old (found version 11040)"),
        (NOT_READY, True, "Error 802: system not yet initialized"),
        (NONE_SEEN, True, NONE_SEEN),
        # A container that was started without the GPU.
        (NO_DRIVER, True, "Found no NVIDIA driver on your system"),
        (NO_DRIVER, False, None),
        (NONE_SEEN, False, None),
    ],
)
def test_why_there_is_no_gpu(machine, says: str, driver: bool, why: str | None) -> None:
    machine(says, driver=driver)
    assert why_no_gpu() == why


def test_hidden_gpus_are_said_to_be_hidden(machine, monkeypatch) -> None:
    machine(NONE_SEEN, driver=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert why_no_gpu() == "CUDA_VISIBLE_DEVICES is '', which shows none"
    machine(NONE_SEEN, driver=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert why_no_gpu() is None


def test_a_torch_without_cuda_is_said_to_be_one_where_there_is_a_gpu(machine) -> None:
    machine(None, driver=True, built=False)
    assert why_no_gpu() == f"torch {torch.__version__} is built without CUDA"
    machine(None, driver=False, built=False)
    assert why_no_gpu() is None


def test_a_gpu_that_can_be_used_has_no_reason(machine, monkeypatch) -> None:
    machine(TOO_OLD, driver=True)
    Gpus(monkeypatch, (GB, GB))
    assert why_no_gpu() is None


def test_falling_back_to_the_cpu_is_said(machine, tmp_path: Path) -> None:
    source = save_model_directory(tmp_path / "tiny")
    machine(TOO_OLD, driver=True)
    stages: list[str] = []
    loaded = loading.load(Options(model=str(source)), lambda text, _: stages.append(text))
    why = "The NVIDIA driver on your system is too old (found version 11040)"
    assert loaded.notes == [f"The GPU cannot be used ({why}): tiny runs on the CPU, in float32."]
    assert stages[0] == f"loading tiny on the CPU: the GPU cannot be used ({why})"
    assert loaded.notes[0] in opened(source).trace.header.notes
    # Who names the CPU knows.
    assert loading.load(Options(model=str(source), device="cpu"), lambda *_: None).notes == []


def test_a_named_gpu_that_cannot_be_used_is_an_error(machine) -> None:
    machine(TOO_OLD, driver=True)
    with pytest.raises(OptionError) as raised:
        find_device("cuda")
    assert str(raised.value) == (
        "cuda cannot be used: The NVIDIA driver on your system is too old (found version 11040); "
        "leave --device out to run on the CPU"
    )
    machine(NO_DRIVER, driver=False)
    with pytest.raises(OptionError, match=r"^there is no device 'cuda:1' here; leave --device out"):
        find_device("cuda:1")


def test_a_gpu_that_is_not_there_names_those_that_are(monkeypatch) -> None:
    Gpus(monkeypatch, (GB, GB), (GB, GB))
    with pytest.raises(OptionError, match=r"^there is no cuda:7 here, only cuda:0 and cuda:1; na"):
        find_device("cuda:7")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            torch.AcceleratorError("CUDA error: out of memory"),
            "the memory of cuda:0 is full; cuda:0 has 0.0 GB of 24.0 GB free; cuda:1 has 9.0 GB of "
            "24.0 GB free; name another, or free its memory",
        ),
        (
            torch.AcceleratorError("CUDA error: all CUDA-capable devices are busy or unavailable"),
            "cuda:0 cannot be used (CUDA error: all CUDA-capable devices are busy or unavailable); "
            "leave --device out, or try cpu",
        ),
    ],
)
def test_a_gpu_that_takes_nothing_says_why(monkeypatch, error: Exception, sentence: str) -> None:
    def ones(*_: object, **__: object) -> object:
        raise error

    Gpus(monkeypatch, (0, 24 * GB), (9 * GB, 24 * GB))
    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(OptionError) as raised:
        find_device("cuda:0")
    assert str(raised.value) == sentence
