"""Every random number, as a function of (seed, purpose, step, place): on the device and on the host.

Nothing here depends on a process's id, the clock or the number of devices, so that a step or a batch can be made again
from its number alone.
"""

import zlib

import jax
import numpy as np


def _number(purpose):
    return zlib.crc32(purpose.encode()) & 0x7FFFFFFF


def run_key(seed):
    """The key of a run: everything drawn on the device is folded from it."""
    return jax.random.key(seed)


def fold(key, purpose, *numbers):
    """The key for one purpose, at one step or place: `numbers` may be traced."""
    key = jax.random.fold_in(key, _number(purpose))
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def fold_each(key, purpose, places):
    """One key for each place in the global batch: int32[B] -> key[B]."""
    return jax.vmap(lambda place: fold(key, purpose, place))(places)


def generator(seed, purpose, *numbers):
    """NumPy's counter-based generator for what is drawn on the host, on the same tuple."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, _number(purpose), *numbers])))
