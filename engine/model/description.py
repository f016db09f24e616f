"""Description of a loaded model for the files that record its numbers."""

from ..errors import OptionError
from ..trace import records
from .context_length import context_length
from .fingerprint import weights_fingerprint
from .loading import Loaded


def describe_model(loaded: Loaded) -> records.Model:
    """Describe a loaded model, before its weights are packed."""
    model = loaded.model
    config = model.config.get_text_config()
    return records.Model(
        name=loaded.name,
        family=model.config.model_type,
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
        device=", ".join(dict.fromkeys(str(p.device) for p in model.parameters())),
        context_length=context_length(model),
        fingerprint=weights_fingerprint(model),
    )


def check_same_model(old: records.Model, new: records.Model) -> None:
    """Raise `UserError` if the model of a file differs; old traces have no fingerprint."""
    if old.fingerprint is None:
        same = (old.name, old.parameters, old.vocab_size) == (
            new.name,
            new.parameters,
            new.vocab_size,
        )
    else:
        same = old.fingerprint == new.fingerprint
    if not same:
        raise OptionError(
            f"the file is of {old.name} ({old.parameters} parameters in {old.dtype}), and "
            f"{new.name} ({new.parameters} in {new.dtype}) has other weights and cannot "
            "go on with it; -m names where its own are now"
        )
