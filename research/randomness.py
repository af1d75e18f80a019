"""Every random number, as a function of (seed, purpose, step, place): on the device and on the host.

Nothing here depends on a process's id, the clock or the number of devices, so that a step or a batch can be made again
from its number alone.
"""

import math
import os
import zlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl, threefry_prng_impl

from research.backend import platform

# Of Threefry 2x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), of which JAX has twenty rounds.
ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


def _number(purpose):
    return zlib.crc32(purpose.encode()) & 0x7FFFFFFF


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def _bits(key, width, shape):
    """Returns the bits that jax.random.bits draws with JAX's own implementation of Threefry.

    On a CPU JAX runs Threefry's rounds as a loop over arrays. Written out they are one operation, fused with its
    readers: half the time, and a fifth of the time to compile.
    """
    if width != 32 or math.prod(shape) >= 2**32:
        return threefry_prng_impl.random_bits(key, width, shape)
    keys = [key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA)]
    place = jnp.zeros(shape, jnp.uint32)  # in the array, row by row: the counter
    for axis, size in enumerate(shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    x, y = jnp.full(shape, keys[0]), place + keys[1]
    for i in range(5):
        for turn in ROTATIONS[i % 2]:
            x = x + y
            y = x ^ ((y << np.uint32(turn)) | (y >> np.uint32(32 - turn)))
        x, y = x + keys[(i + 1) % 3], y + (keys[(i + 2) % 3] + np.uint32(i + 1))
    return x ^ y


_WRITTEN_OUT = define_prng_impl(
    key_shape=threefry_prng_impl.key_shape,
    seed=threefry_prng_impl.seed,
    split=threefry_prng_impl.split,
    fold_in=threefry_prng_impl.fold_in,
    random_bits=_bits,
    name="threefry written out",
    tag="written out",
)


def draw(function, key, *arguments, **named):
    """Returns function(key, ...), for a function that draws arrays from a key, such as jax.random.normal.

    On a CPU the bits are computed by `_bits`; they are the same. No key of that implementation leaves this function, so
    that all keys elsewhere are JAX's own. RESEARCH_KERNELS=reference draws by JAX everywhere.
    """
    own = os.environ.get("RESEARCH_KERNELS") != "reference" and platform() == "cpu"
    # Without jax_threefry_partitionable, JAX draws other bits than these.
    if own and jax.config.jax_threefry_partitionable and jax.random.key_impl(key) == "threefry2x32":
        key = jax.random.wrap_key_data(jax.random.key_data(key), impl=_WRITTEN_OUT)
    return function(key, *arguments, **named)


def run_key(seed):
    """Returns the key of a run, from which all keys on the device are folded."""
    return jax.random.key(seed, impl="threefry2x32")  # independent of jax_default_prng_impl


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
