"""Two pretended devices: tensors on the CPU say where they are, and refuse to mix."""

from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import PreTrainedModel

FIRST, SECOND = torch.device("cpu:0"), torch.device("cpu:1")
CPU = torch.device("cpu")


FETCHES = {"cpu", "item", "tolist", "numpy", "nonzero", "__bool__", "__int__", "__float__"}


class Placed(Tensor):
    """A tensor on the CPU that claims to be on one of the devices."""

    place: torch.device


class Devices(TorchFunctionMode):
    """Mode in which tensors of pretended devices are `Placed` and do not mix.

    As CUDA has it: numbers without dimensions may come from the CPU, and copies from anywhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        """Functions by which the host has waited for a device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func == Tensor.device.__get__:  # pyright: ignore[reportAttributeAccessIssue]
            return where(args[0])
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        met = {where(tensor) for tensor in inputs if isinstance(tensor, Placed) or tensor.ndim}
        if len(met) > 1 and name not in ("to", "copy_", "__setitem__"):
            raise RuntimeError(f"{name} got tensors on {sorted(map(str, met))}")
        place = next((where(tensor) for tensor in inputs if isinstance(tensor, Placed)), CPU)
        place = kwargs.get("device") or place
        if name == "to":
            place = next((arg for arg in args[1:] if isinstance(arg, torch.device)), place)
        if name == "cpu":
            place = CPU
        with torch._C.DisableTorchFunctionSubclass():
            output = func(*args, **kwargs)

        if any(isinstance(tensor, Placed) for tensor in inputs) and (
            name in FETCHES or (name == "to" and place == CPU) or _picks_by_mask(name, args)
        ):
            self.waits.append(name)

        def placed(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            # A copy to where it is gives the tensor itself.
            itself = any(value is tensor for tensor in inputs)
            if itself and (name not in ("to", "cpu") or where(value) == place):
                return value
            return put(value, place)

        return tree_map(placed, output)


def _picks_by_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a function indexes by a mask, whose count only the device knows."""
    return name in ("__getitem__", "__setitem__") and any(
        isinstance(leaf, Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1])
    )


def where(tensor: Tensor) -> torch.device:
    return tensor.place if isinstance(tensor, Placed) else CPU


def put(tensor: Tensor, place: Any) -> Tensor:
    """A view of the tensor that claims to be on a device."""
    with torch._C.DisableTorchFunction():
        if torch.device(place) == where(tensor):
            return tensor
        if torch.device(place) == CPU:
            return tensor.detach().as_subclass(Tensor)
        made = tensor.detach().as_subclass(Placed)
    made.place = torch.device(place)
    return made


def move(module: nn.Module, place: torch.device) -> None:
    """Put a module's own tensors, not those of its children, on a device."""
    for name, parameter in [*module.named_parameters(recurse=False)]:
        module._parameters[name] = nn.Parameter(put(parameter.data, place), False)
    for name, buffer in [*module.named_buffers(recurse=False)]:
        module._buffers[name] = put(buffer, place)


def spread(model: PreTrainedModel, layers: list[nn.Module], head: nn.Module) -> None:
    """Put the second half of the layers and all after it on the second device.

    By accelerate's hooks: a module's forward moves its inputs to the device of its weights, the
    model's moves the outputs to that of the inputs; a hook before the forward sees them unmoved.
    """
    half = layers[len(layers) // 2 :]
    base: Any = getattr(model, model.base_model_prefix)
    norms = [part for name, part in base.named_children() if "norm" in name or name == "ln_f"]
    behind = {part for layer in half for part in layer.modules()} | {head, *norms}
    for module in model.modules():
        move(module, SECOND if module in behind else FIRST)
    for module in (*half, head, *norms):
        add_hook_to_module(module, _Aligned(execution_device=SECOND))
    add_hook_to_module(model, _Aligned(execution_device=FIRST, io_same_device=True))


class _Aligned(AlignDevicesHook):
    def init_hook(self, module: nn.Module) -> nn.Module:
        """Leave the tensors where `move` has put them."""
        return module
