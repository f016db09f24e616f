"""A lockstep that is installed on its models."""

from typing import Any

from prunetui.engine.decode.lockstep import Lockstep


def install_lockstep(*args: Any, **kwargs: Any) -> Lockstep:
    """Build a lockstep as its class does and install it."""
    lockstep = Lockstep(*args, **kwargs)
    lockstep.install()
    return lockstep
