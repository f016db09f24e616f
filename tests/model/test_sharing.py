"""Checkpoints beside the baseline: what is shared, and how much a device holds while they load."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import torch
from prunetui.engine.model import loading
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.loading import Loaded, LoadedCheckpoint, load_checkpoint
from prunetui.engine.model.reference import Reference, take_reference
from prunetui.engine.options import Options
from prunetui.engine.variants.builder import VariantBuilder, VariantTooBigError
from prunetui.engine.variants.recipes import parse
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..support import devices
from ..support.devices import SECOND, Placed, Placement, move, where
from ..support.models import changed, save_model_directory


def nothing(_doing: str, _done: float | None) -> None:
    pass


class Bytes:
    """Bytes of the tensors on the second pretended device, tensors of one address once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peak = 0
        self._placed: WeakSet[Placed] = WeakSet()
        original = devices.put

        def put(tensor: Tensor, place: Any) -> Tensor:
            made = original(tensor, place)
            if isinstance(made, Placed):
                self._placed.add(made)
                self.peak = max(self.peak, self.now())
            return made

        monkeypatch.setattr(devices, "put", put)

    def now(self) -> int:
        sizes: dict[int, int] = {}
        with torch._C.DisableTorchFunction():
            for tensor in self._placed:
                if where(tensor) == SECOND:
                    address = tensor.data_ptr()
                    sizes[address] = max(sizes.get(address, 0), tensor.nbytes)
        return sum(sizes.values())


def load_elsewhere(source: Path) -> Loaded:
    """The baseline on the second device."""
    loaded = loading.load(Options(model=str(source), raw=True, prompt="hello"), nothing)
    for module in loaded.model.modules():
        move(module, SECOND)
    return loaded


def own_weights(checkpoint: PreTrainedModel, baseline: PreTrainedModel) -> dict[str, Tensor]:
    shared = {id(weight) for weight in baseline.parameters()}
    weights = checkpoint.named_parameters()
    return {name: weight for name, weight in weights if id(weight) not in shared}


def is_changed(name: str) -> bool:
    """Whether the sparsified checkpoint has another weight; its biases are 0 as the baseline's."""
    return ("layers.1." in name or "h.1." in name) and "bias" not in name


def llm_drop(source: Path) -> Path:
    """Dropped attentions whose weights the files lack."""

    def rename(name: str) -> str | None:
        lacks = any(f"layers.{layer}.self_attn" in name for layer in (1, 2))
        return None if lacks else name

    return changed(source, "dropped", rename, drop_attn_list=[1, 2], drop_mlp_list=[])


def sparsified(source: Path) -> Path:
    return changed(
        source, "other", change=lambda name, weight: weight * (0.5 if is_changed(name) else 1)
    )


@pytest.mark.parametrize(
    ("family", "make", "differ"),
    [
        ("llama", llm_drop, False),
        ("llama", sparsified, True),
        ("gpt2", sparsified, True),
        ("mixtral", sparsified, True),
    ],
)
def test_a_device_holds_the_baseline_what_differs_and_one_tensor(
    family: str, make: Callable[[Path], Path], differ: bool, tmp_path: Path, monkeypatch
) -> None:
    source = save_model_directory(tmp_path / "model", family)
    checkpoint = make(source)
    loaded: list[int] = []

    def reference(model: PreTrainedModel, tokens: list[int]) -> Reference:
        # Reading tokens takes memory of its own.
        loaded.append(counted.peak)
        return take_reference(model, tokens)

    with Placement():
        counted = Bytes(monkeypatch)
        baseline = load_elsewhere(source)
        before = counted.peak = counted.now()
        monkeypatch.setattr(loading, "take_reference", reference)
        made = load_checkpoint(str(checkpoint), Options(raw=True), baseline, nothing)
        own = own_weights(made.model, baseline.model)
        names = [name for name, _ in baseline.model.named_parameters()]
        assert [*own] == [name for name in names if differ and is_changed(name)]
        largest = max(weight.nbytes for weight in baseline.model.parameters())
        differing = sum(weight.nbytes for weight in own.values())
        buffers = sum(buffer.nbytes for buffer in made.model.buffers())
        assert before + differing < loaded[0] <= before + differing + buffers + largest
    assert_stock(made, checkpoint, baseline)


def assert_stock(made: LoadedCheckpoint, checkpoint: Path, baseline: Loaded) -> None:
    """Weights of the files, and logits of stock transformers with them."""
    stock = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    state = made.model.state_dict()
    for name, weight in stock.state_dict().items():
        if made.dropped.explains(name):
            # No lane reads them; random ones would cost memory.
            weight = baseline.model.state_dict()[name]
        assert torch.equal(state[name].as_subclass(Tensor), weight), name
    if not made.dropped:
        logits = stock(torch.tensor([made.reference.tokens.tolist()])).logits[0]
        assert torch.allclose(made.reference.full, logits, atol=1e-5)


def test_a_checkpoint_that_does_not_fit_is_left_out(tmp_path: Path, monkeypatch) -> None:
    source = save_model_directory(tmp_path / "model")
    other = changed(source, "other", change=lambda _, weight: weight * 0.5)
    options = Options(model=str(source), raw=True, device="cpu")
    loaded = loading.load(options, nothing)
    builder = VariantBuilder(loaded, find_anatomy(loaded.model), options, nothing)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loading, "share_equal_tensors", full)
    with pytest.raises(VariantTooBigError, match="variant other is left out: out of memory while"):
        builder.build(parse(f"other={other}"))
