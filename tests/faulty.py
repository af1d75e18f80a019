"""A model that does violence to its own process while it trains: what the workers of a sweep are tested with."""

import os
import pathlib
import signal
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.models import MODELS
from research.models.layers import head


class Faulty(nn.Module):
    """Softmax regression on the pixels. Faults: none; raise, kill and hang, until there is a file `mended` in the
    folder FAULTS; once, killed the first time alone."""

    fault: str = "none"
    classes: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image, mask=None, *, train=False):
        logits = head(self.classes, self.dtype)(image.reshape(image.shape[0], -1))
        if not train or self.fault == "none":
            return logits
        return logits + jax.pure_callback(lambda: strike(self.fault), jax.ShapeDtypeStruct((), jnp.float32))


def strike(fault):
    place = pathlib.Path(os.environ["FAULTS"])
    if not (place / "mended").exists():
        if fault == "raise":
            raise MemoryError("no memory left")
        if fault == "hang":
            time.sleep(3600)
        if fault == "kill" or not (place / "killed").exists():
            if fault == "once":
                (place / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return np.float32(0)


def settings():
    """What each worker calls first."""
    from experiments import command

    command.process_settings()
    MODELS["faulty"] = Faulty
