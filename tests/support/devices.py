"""Two pretended devices: tensors on the CPU say where they are, and refuse to mix."""

from contextlib import nullcontext
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from transformers import PreTrainedModel

from .transfers import FETCHES, MAKERS, READING_KERNELS, Transfers, tensors_in

FIRST, SECOND = torch.device("cpu:0"), torch.device("cpu:1")
CPU = torch.device("cpu")


class Placed(Tensor):
    """A tensor on the CPU that claims to be on one of the devices."""

    place: torch.device


class Placement(TorchFunctionMode):
    """Mode in which tensors of pretended devices are `Placed` and do not mix.

    As CUDA has it: numbers without dimensions and indices may come from the CPU, and copies from
    anywhere.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func == Tensor.device.__get__:  # pyright: ignore[reportAttributeAccessIssue]
            return where(args[0])
        inputs = tensors_in((args, kwargs))
        met = {where(tensor) for tensor in inputs if isinstance(tensor, Placed) or tensor.ndim}
        if len(met) > 1 and name not in ("to", "copy_", "__getitem__", "__setitem__"):
            raise RuntimeError(f"{name} got tensors on {sorted(map(str, met))}")
        place = _place_of_output(name, args, kwargs, inputs)
        output = self._call(func, args, kwargs, place)

        def placed(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            # A copy to where it is gives the tensor itself.
            itself = any(value is tensor for tensor in inputs)
            if itself and (name not in ("to", "cpu") or where(value) == place):
                return value
            return put(value, place)

        return placed(output) if isinstance(output, Tensor) else tree_map(placed, output)

    def _call(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: torch.device,  # noqa: ARG002
    ) -> Any:
        """Call the function, whose output is on the device `place`."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)


class Devices(Placement):
    """Placement that lists what the host waits for, and what it copies to a device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        """Functions by which the host has waited for a number of a device."""
        self.copies: list[str] = []
        """Functions that have copied from the host to a device."""

    def _call(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: torch.device
    ) -> Any:
        name = getattr(func, "__name__", "")
        inputs = tensors_in((args, kwargs))
        on_host = [tensor for tensor in inputs if not isinstance(tensor, Placed)]
        from_device = len(on_host) < len(inputs)
        transfers = Transfers(on_host)
        with transfers if from_device and name != "__get__" else nullcontext():
            output = super()._call(func, args, kwargs, place)
        listed = args[name == "new_tensor"] if name in MAKERS else None
        makes = listed is not None and not isinstance(listed, Tensor)
        if from_device and (
            transfers.reads
            or name in FETCHES | READING_KERNELS
            or (name == "to" and place == CPU)
            # A list of numbers on the device is read one by one.
            or (makes and any(isinstance(number, Placed) for number in tensors_in(listed)))
        ):
            self.waits.append(name)
        moves = name == "to" and isinstance(args[0], Tensor) and where(args[0]) == CPU
        if transfers.copies or (place != CPU and (moves or makes)):
            self.copies.append(name)
        return output


def _place_of_output(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor]
) -> torch.device:
    if name == "cpu":
        return CPU
    for target in (kwargs.get("device"), *(args[1:] if name == "to" else ())):
        if isinstance(target, str | torch.device):
            return torch.device(target)
        if isinstance(target, Tensor):
            return where(target)
    return next((where(tensor) for tensor in inputs if isinstance(tensor, Placed)), CPU)


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
