"""Save and load models in Keras's native format, `.keras`."""

from toolkit.saving.api import Checkpoint, load, save

__all__ = ["Checkpoint", "load", "save"]
