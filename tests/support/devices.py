"""Two devices that are not there: tensors say where they are, and refuse to meet."""

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
    """Within it, tensors made for one of the devices are `Placed`, and tensors of two do not mix.

    As CUDA has it: numbers without dimensions may come from the CPU, and copies from anywhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        """By which functions the host has waited for a device: what they gave it back."""

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
    """How many it picks is known on the device only."""
    return name in ("__getitem__", "__setitem__") and any(
        isinstance(leaf, Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1])
    )


def where(tensor: Tensor) -> torch.device:
    return tensor.place if isinstance(tensor, Placed) else CPU


def put(tensor: Tensor, place: Any) -> Tensor:
    """The same numbers, which say that they are at `place`."""
    with torch._C.DisableTorchFunction():
        if torch.device(place) == where(tensor):
            return tensor
        if torch.device(place) == CPU:
            return tensor.detach().as_subclass(Tensor)
        made = tensor.detach().as_subclass(Placed)
    made.place = torch.device(place)
    return made


def move(module: nn.Module, place: torch.device) -> None:
    """Its own tensors, not those of modules in it."""
    for name, parameter in [*module.named_parameters(recurse=False)]:
        module._parameters[name] = nn.Parameter(put(parameter.data, place), False)
    for name, buffer in [*module.named_buffers(recurse=False)]:
        module._buffers[name] = put(buffer, place)


def spread(model: PreTrainedModel, layers: list[nn.Module], head: nn.Module) -> None:
    """The second half of the layers and what follows on the second device, the rest on the first.

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
        """Its tensors are where they should be."""
        return module
