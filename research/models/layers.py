"""The layers that models share: convolution, exact normalisation, dropout, the classifier's head."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from research.backend import platform
from research.errors import UserError
from research.models.convolution import convolve
from research.randomness import draw

ONE_HOT_LIMIT = 512  # rows of a table that are looked up by a product

# Small, so that the loss begins at log(classes); not zero, so that all below receives gradient from the first step.
HEAD_INIT = partial(draw, nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal"))


class Head(nn.Module):
    """The last dense layer of a classifier. Its logits are float32, whatever the model computes in."""

    classes: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):  # [B, D] -> float32[B, classes]
        kernel = self.param("kernel", HEAD_INIT, (x.shape[-1], self.classes), jnp.float32)
        return product(x, kernel, self.param("bias", nn.initializers.zeros, (self.classes,), jnp.float32), self.dtype)


def head(classes, dtype):
    """Returns the Head of a classifier, by the name that all models give it."""
    return Head(classes, dtype, name="head")


class Conv(nn.Module):
    """Two-dimensional convolution, computed by research.models.convolution."""

    features: int
    kernel: int = 3
    stride: int = 1
    padding: str = "SAME"
    bias: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, between=lambda x: x):  # [B, H, W, C] -> [B, H', W', O]
        """`between` is applied before the bias is added: a max-pool there is the same and cheaper."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", partial(draw, nn.initializers.he_normal()), shape, jnp.float32)
        x = between(convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.padding))
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return x


class Norm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015), group normalisation (Wu and He 2018), or nothing, by `kind`.

    Batch statistics are those of all unmasked examples on all devices: sum, sum of squares and count are added over
    the devices before anything is divided. With microbatches they are each microbatch's own. Computed in float32.
    """

    kind: str
    dtype: str = "float32"
    momentum: float = 0.9
    epsilon: float = 1e-5
    groups: int = 32

    @nn.compact
    def __call__(self, x, mask, *, train):  # [B, ..., C], [B] -> [B, ..., C]
        if self.kind == "none":
            return x
        if self.kind == "group":
            if x.shape[-1] % min(self.groups, x.shape[-1]):
                raise UserError(2, f"config.model.width: {x.shape[-1]} channels are no whole groups of {self.groups}")
            return nn.GroupNorm(min(self.groups, x.shape[-1]), epsilon=self.epsilon, dtype=self.dtype)(x)
        if self.kind != "batch":
            raise UserError(2, f"config.model.norm: {self.kind!r} is unknown; known are batch, group, none")
        channels = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        variance = self.variable("batch_stats", "variance", jnp.ones, channels, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        m, v = mean.value, variance.value
        if train:
            count, m, v = batch_statistics(x, mask)
            if not self.is_initializing():
                kept = jnp.where(count > 0, self.momentum, 1.0)  # a batch of padding says nothing
                mean.value = kept * mean.value + (1 - kept) * m
                variance.value = kept * variance.value + (1 - kept) * v
        wide = lambda c: c.reshape(*[1] * (x.ndim - 1), -1)
        factor = scale * lax.rsqrt(v + self.epsilon)
        return ((x.astype(jnp.float32) - wide(m)) * wide(factor) + wide(bias)).astype(self.dtype)


def batch_statistics(x, mask):
    """Count, mean and variance of the unmasked examples over all axes but the last, and over all devices.

    Args:
        x: float[B, ..., C].
        mask: float32[B], 0 where an example is padding; None where all count.

    Returns:
        float32 [], [C], [C].
    """
    x, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
    mask = jnp.ones(x.shape[0]) if mask is None else (mask > 0).astype(jnp.float32)
    real = jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)) > 0, x, 0.0)
    each = x.size // x.shape[0] // x.shape[-1]
    count, total, squares = over_devices((mask.sum() * each, real.sum(axes), jnp.square(real).sum(axes)))
    mean = total / jnp.maximum(count, 1)
    return count, mean, jnp.maximum(squares / jnp.maximum(count, 1) - jnp.square(mean), 0)


def over_devices(sums):
    """Sums over the shards of a pmap; under jit arrays are global, and their sums too."""
    try:
        return lax.psum(sums, "data")
    except NameError:  # JAX's word for: not inside a map over this axis
        return sums


class Dropout(nn.Module):
    """Srivastava et al. 2014. Linen's own refuses a rate that is an array, with which runs are vmapped."""

    rate: float | jax.Array

    @nn.compact
    def __call__(self, x, *, train):
        return drop(self.make_rng("dropout"), x, self.rate) if is_dropped(self.rate, train) else x


def is_dropped(rate, train):
    """Whether dropout draws anything: a rate that is an array is not asked for its value."""
    return train and not (isinstance(rate, (int, float)) and rate == 0)


def drop(key, x, rate):
    """Each element zero with probability `rate`, the others scaled so that the expectation stays."""
    keep = draw(jax.random.uniform, key, x.shape) >= rate
    return jnp.where(keep, x / (1 - jnp.asarray(rate, x.dtype)), 0).astype(x.dtype)


def embed(table, ids):
    """Rows of a table: int32[...] -> [..., D], to the bit. An id below 0 is padding, and read as 0.

    On a CPU a small one is looked up by a product, whose gradient is one too: a scatter of single rows is slower there.
    Elsewhere a product rounds, by default to the 8 or 11 bits of bfloat16 or TF32.
    """
    ids = jnp.maximum(ids, 0)
    if table.shape[0] > ONE_HOT_LIMIT or platform() != "cpu":
        return jnp.asarray(table)[ids]  # NumPy's own cannot be indexed while tracing
    return _by_product(table, jax.nn.one_hot(ids, table.shape[0], dtype=table.dtype))


@jax.custom_vjp
def _by_product(table, onehot):
    return onehot @ table


def _by_product_backward(onehot, g):
    g = materialized(g.reshape(-1, g.shape[-1]))
    return onehot.reshape(-1, onehot.shape[-1]).T @ g, None


_by_product.defvjp(lambda table, onehot: (onehot @ table, onehot), _by_product_backward)


def materialized(x):
    """x, on a CPU written to memory: else XLA computes all that it is made of again wherever it is read, and at a
    fraction of the speed where it is transposed there. A third of a small GPT's step."""
    return lax.optimization_barrier(x) if platform() == "cpu" else x


def wide(c, x):
    """[D] as [1, ..., D], of the rank of x."""
    return c.reshape(*[1] * (x.ndim - 1), -1)


def product(x, kernel, bias=None, dtype="float32"):
    """x @ kernel + bias: [..., D], [D, F] -> float32[..., F].

    With dtype bfloat16 the factors are rounded to it, here and in both products of the gradient; sums are float32.
    """
    y = _product(x.reshape(-1, x.shape[-1]), kernel, bias, dtype == "bfloat16")
    return y.reshape(*x.shape[:-1], -1)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _product(x, kernel, bias, narrow):
    return _product_forward(x, kernel, bias, narrow)[0]


def _product_forward(x, kernel, bias, narrow):
    x, kernel = (y.astype(jnp.bfloat16) if narrow else y for y in (x, kernel))
    y = _matmul(x, kernel)
    return y if bias is None else y + bias[None], (x, kernel, bias)


def _product_backward(narrow, saved, g):
    x, kernel, bias = saved
    g = materialized(g)
    dbias = None if bias is None else _column_sums(g)
    g = g.astype(kernel.dtype)
    dx = lax.dot_general(g, kernel, (((1,), (1,)), ((), ())), preferred_element_type=_sums(g))
    return dx, _transposed(materialized(x), g), dbias


_product.defvjp(_product_forward, _product_backward)


def _column_sums(x):
    """Returns the sums over the rows: float32[N, F] -> float32[F].

    On a CPU as a product with ones: the sums of 33,278 columns of 256 rows take 0.7 ms, and 49 ms by XLA's reduction.
    Elsewhere a product rounds its factors, by default to bfloat16 or TF32.
    """
    if platform() != "cpu":
        return x.sum(axis=0)
    return (materialized(jnp.ones((1, len(x)), x.dtype)) @ x)[0]


def _matmul(x, y):
    return jnp.matmul(x, y, preferred_element_type=_sums(x))


def _sums(x):
    return jnp.promote_types(x.dtype, jnp.float32)


def _transposed(x, g):
    """x^T g, [N, D], [N, F] -> float32[D, F].

    XLA's CPU has no product of 16 bits over the first axes: it widens both factors. So x is transposed before, through
    three axes, since a plain transpose is taken back into the product: three to four times faster.
    """
    n, d = x.shape
    if platform() != "cpu" or x.dtype != jnp.bfloat16 or d % 2:
        return _matmul(x.T, g)
    x = materialized(jnp.transpose(x.reshape(n, 2, d // 2), (1, 2, 0))).reshape(d, n)
    return materialized(_matmul(x, g))
