"""Convolution and max-pooling with gradients that are fast on a CPU too, equal to XLA's up to rounding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.backend import platform

_LAYOUT = ("NHWC", "HWIO", "NHWC")
THIN = 8  # channels below which a row of the kernel makes too thin a product: all rows are one
# Bytes of columns side by side up to which products beat XLA's convolution: by 1.1 to 1.5 in the step of the small
# networks, and beyond, in a ResNet's, they lose 5 %.
CACHED = 2**22


def convolve(x, kernel, stride, padding):
    """Cross-correlation: float[B, H, W, C], float[h, w, C, O] -> float[B, H', W', O].

    On a CPU it is computed as matrix products, where these fit the cache, and so is the gradient of the kernel always:
    XLA's convolution for that takes 1.4 to 2.3 times as long as it stands, and 20 times inside a loop, so also with
    several steps a call. (To keep the joined columns of the forward pass for the gradient changes nothing.)

    Args:
        stride: int, for both axes.
        padding: "VALID" or "SAME".
    """
    pads = tuple(lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding))
    if platform() == "cpu":
        return _convolve_cpu(x, kernel, stride, pads)
    return _convolve(x, kernel, stride, pads)


def _convolve(x, kernel, stride, pads):
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_cpu(x, kernel, stride, pads):
    if stride > 1 or x.size * x.dtype.itemsize * kernel.shape[1] > CACHED:
        return _convolve(x, kernel, stride, pads)
    rows = _rows(x, kernel.shape, stride, pads)
    matrices = kernel.reshape(len(rows), -1, kernel.shape[-1])
    # Rounded once: bfloat16 would otherwise be rounded to after each row of the kernel.
    wide = jnp.promote_types(x.dtype, jnp.float32)
    products = (jnp.matmul(row, matrix, preferred_element_type=wide) for row, matrix in zip(rows, matrices))
    return sum(products).astype(x.dtype)


def _forward(x, kernel, stride, pads):
    return _convolve_cpu(x, kernel, stride, pads), (x, kernel)


def _backward(stride, pads, saved, g):
    x, kernel = saved
    dx = _input_gradient(g, kernel, stride, pads, x.shape)
    flat, wide = g.reshape(-1, g.shape[-1]), jnp.promote_types(g.dtype, jnp.float32)
    product = lambda row: jnp.matmul(row.reshape(len(flat), -1).T, flat, preferred_element_type=wide)
    dkernel = jnp.concatenate([product(row) for row in _rows(x, kernel.shape, stride, pads)])
    return dx, dkernel.reshape(kernel.shape).astype(kernel.dtype)


def _rows(x, shape, stride, pads):
    """For each row of the kernel what it is multiplied with, its columns side by side: [B, H', W', w * C].

    One a row stays in cache; of few channels, which make thin products, all rows are one.
    """
    height, width, channels, _ = shape
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    across = lambda i: slice(i, i + stride * ((x.shape[1] - height) // stride) + 1, stride)
    along = lambda j: slice(j, j + stride * ((x.shape[2] - width) // stride) + 1, stride)
    joined = jnp.concatenate([x[:, :, along(j)] for j in range(width)], axis=-1)
    rows = [joined[:, across(i)] for i in range(height)]
    return [jnp.concatenate(rows, axis=-1)] if channels < THIN else rows


def _input_gradient(g, kernel, stride, pads, shape):
    """The transposed convolution, written as a plain one: XLA's own transposition is 3 times slower inside a loop."""
    padding = []
    for axis in range(2):
        low = kernel.shape[axis] - 1 - pads[axis][0]
        dilated = (g.shape[axis + 1] - 1) * stride + 1
        padding.append((low, shape[axis + 1] + kernel.shape[axis] - 1 - dilated - low))
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(
        g, turned, (1, 1), padding, lhs_dilation=(stride, stride), dimension_numbers=_LAYOUT
    )


_convolve_cpu.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x, size):
    """Largest of each window of size x size, windows side by side, what is left over dropped: [B, H, W, C].

    The gradient goes to the first of equals, as with XLA's own form, whose select-and-scatter takes a CPU 28 times as
    long.
    """
    return _pool(x, size)[0]


def _pool(x, size):
    b, h, w, c = x.shape
    h, w = h // size, w // size
    windows = x[:, : h * size, : w * size].reshape(b, h, size, w, size, c)
    places = np.min_scalar_type(size * size - 1)  # 8 bits for windows of up to 16 x 16
    best, index = windows[:, :, 0, :, 0], jnp.zeros((b, h, w, c), places)
    for place in range(1, size * size):
        value = windows[:, :, place // size, :, place % size]
        better = (value > best) | jnp.isnan(value)
        best, index = jnp.where(better, value, best), jnp.where(better, places.type(place), index)
    return best, index


def _pool_forward(x, size):
    best, index = _pool(x, size)
    return best, (index, x.shape)


def _pool_backward(size, saved, g):
    index, (b, height, width, c) = saved
    _, h, w, _ = g.shape
    places = jnp.arange(size * size, dtype=index.dtype).reshape(1, 1, size, 1, size, 1)
    dx = jnp.where(index[:, :, None, :, None] == places, g[:, :, None, :, None], 0).astype(g.dtype)
    dx = dx.reshape(b, h * size, w * size, c)
    return (jnp.pad(dx, ((0, 0), (0, height - h * size), (0, width - w * size), (0, 0))),)


max_pool.defvjp(_pool_forward, _pool_backward)
