"""Two pretended devices: tensors on the CPU say where they are, and refuse to mix."""

from contextlib import nullcontext
from typing import Any

import torch
from prunetui.engine.model.anatomy import find_anatomy
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from transformers import PreTrainedModel
from transformers.integrations.accelerate import accelerate_dispatch

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
        # Torch knows the devices as one, of two names, and copies from one name to the other.
        if name == "to" and (where(args[0]), args[0].dtype) == (place, output.dtype):
            return args[0]

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


def spread(model: PreTrainedModel) -> None:
    """Put the second half of the layers and all after it on the second device, as accelerate does.

    By its hooks: a module's forward moves its inputs to the device of its weights, the model's
    moves the outputs to that of the inputs; a hook before the forward sees them unmoved. A tied
    head is where the embedding is.
    """
    anatomy = find_anatomy(model)
    layers = [layer.module for layer in anatomy.layers]
    tied = model.get_input_embeddings().weight is anatomy.head.weight
    device_map: dict[str, torch.device] = {}

    def place(path: str, module: nn.Module) -> None:
        if module in layers:
            device_map[path] = FIRST if layers.index(module) < len(layers) // 2 else SECOND
        elif any(layer in layers for layer in module.modules()):
            for name, child in module.named_children():
                place(f"{path}.{name}".lstrip("."), child)
        else:
            last = "norm" in path or path.endswith("ln_f") or (module is anatomy.head and not tied)
            device_map[path] = SECOND if last else FIRST

    place("", model)
    for path, device in device_map.items():
        for module in model.get_submodule(path).modules():
            move(module, device)
    model.tie_weights()
    accelerate_dispatch(model, None, device_map, None, None, False)
