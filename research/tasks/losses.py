"""Losses and measures that tasks share: of each value, their masked sums, and those over a text in pieces."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from research.backend import platform
from research.errors import UserError
from research.models.layers import materialized, product


def cross_entropy(logits, labels, smoothing=0.0):
    """Label-smoothed cross-entropies in nats. Szegedy et al. 2016, section 7 (arXiv:1512.00567).

    Args:
        logits: float[..., C], unnormalised; reduced in float32 or better.
        labels: int32[...] in [0, C).
        smoothing: in [0, 1): q = (1 - smoothing) onehot + smoothing / C.

    Returns:
        float32[...].
    """
    return _cross_entropy(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), labels, smoothing)


@jax.custom_vjp
def _cross_entropy(logits, labels, smoothing):
    return _forward(logits, labels, smoothing)[0]


def _forward(logits, labels, smoothing):
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    losses = normaliser - (1 - smoothing) * picked - smoothing * logits.mean(axis=-1)
    return losses, (logits, labels, smoothing, normaliser, picked)


def _backward(saved, g):
    # By hand: autodiff keeps the log-probabilities besides the logits and scatters into another array of that size.
    logits, labels, smoothing, normaliser, picked = saved
    classes = logits.shape[-1]
    onehot = labels[..., None] == jnp.arange(classes).reshape(*[1] * labels.ndim, -1)
    probabilities = jnp.exp(logits - normaliser[..., None])
    gradient = probabilities - jnp.where(onehot, 1 - smoothing, 0.0) - smoothing / classes
    to_smoothing = (g * (picked - logits.mean(axis=-1))).sum()
    g = g[..., None]
    # where, not a product: what a mask hides may be anything.
    return jnp.where(g == 0, 0.0, g * gradient), None, jnp.asarray(to_smoothing, jnp.result_type(smoothing))


_cross_entropy.defvjp(_forward, _backward)


def check_shape(logits, wanted, task):
    """Raises the error of a model whose outputs are not what a task scores.

    Raises:
        UserError: 2.
    """
    if logits.shape != wanted:
        raise UserError(2, f"config.model.name: gives outputs of shape {logits.shape}; {task} wants {wanted}")


def is_in_top(logits, labels, k):
    """float32[...]: 1 where fewer than k classes have a larger logit, else 0; of equals the first counts as larger."""
    logits = logits.astype(jnp.float32)
    own = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    place = jnp.arange(logits.shape[-1]).reshape(*[1] * labels.ndim, -1)
    ahead = (logits > own) | ((logits == own) & (place < labels[..., None]))
    return ((ahead.sum(axis=-1) < k) & jnp.isfinite(own[..., 0])).astype(jnp.float32)


def masked(values, mask):
    """(sum, count) of values float[...] under a mask of their shape; where it is 0 nothing counts, not even a nan."""
    return jnp.where(mask > 0, values * mask, 0.0).sum(), mask.sum()


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def token_sums(x, kernel, bias, targets, mask, dtype):
    """Sums over unmasked tokens of their cross-entropies, in nats, and of how many are the most likely ones.

    A piece of the text at a time: its logits, and in training what is to be added to the gradients, which follow from
    them alone since the sum's own gradient is a factor. So no logits are kept and none are computed twice.

    Args:
        x: float[B, T, D], what the head reads; or logits [B, T, V], where kernel is None.
        kernel, bias: [D, V], [V]; None where there is none.
        targets: int32[B, T].
        mask: float32[B, T].
        dtype: of the head's products.

    Returns:
        float32[], float32[]; the second has no gradient.
    """
    function = lambda cut: _piece(cut[0], kernel, bias, *cut[1:], dtype)
    loss, right = lax.map(function, _cut(kernel, x, targets, mask))
    return loss.sum(), right.sum()


def _sums_forward(x, kernel, bias, targets, mask, dtype):
    zeros = jax.tree.map(jnp.zeros_like, (kernel, bias))

    def step(total, cut):
        x, targets, mask = cut
        logits, back = jax.vjp(lambda *head: _logits(*head, dtype), x, kernel, bias)
        largest = logits.max(axis=-1, keepdims=True)
        # Kept, since it is read twice: an exp costs more than memory does.
        exponentials = materialized(jnp.exp(logits - largest))
        normaliser = exponentials.sum(axis=-1, keepdims=True)
        own = jnp.take_along_axis(logits, targets[..., None], axis=-1)
        loss = masked((jnp.log(normaliser) + largest - own)[..., 0], mask)[0]
        onehot = targets[..., None] == jnp.arange(logits.shape[-1]).reshape(1, 1, -1)
        # where, not a product: what a mask hides may be anything.
        shown = mask[..., None]
        dx, *dhead = back(jnp.where(shown == 0, 0.0, shown * (exponentials / normaliser - onehot)))
        right = masked(is_in_top(logits, targets, 1), mask)[0]
        return jax.tree.map(jnp.add, total, tuple(dhead)), (loss, right, dx)

    dhead, (loss, right, dx) = lax.scan(step, zeros, _cut(kernel, x, targets, mask))
    return (loss.sum(), right.sum()), (_joined(dx), *dhead)


def _sums_backward(dtype, gradients, g):
    return (*jax.tree.map(lambda x: (g[0] * x).astype(x.dtype), gradients), None, None)


token_sums.defvjp(_sums_forward, _sums_backward)


def token_log_probs(x, kernel, bias, targets, dtype):
    """float32[B, T]: the log-probability of each target, a piece of the text at a time; arguments as for token_sums."""
    function = lambda cut: -cross_entropy(_logits(cut[0], kernel, bias, dtype), cut[1])
    return _joined(lax.map(function, _cut(kernel, x, targets)))


def _piece(x, kernel, bias, targets, mask, dtype):
    logits = _logits(x, kernel, bias, dtype)
    return masked(cross_entropy(logits, targets), mask)[0], masked(is_in_top(logits, targets, 1), mask)[0]


def _logits(x, kernel, bias, dtype):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if kernel is None else product(x, kernel, bias, dtype)


# Logits that are there at once: few enough for the caches of a CPU, many enough for the units of a GPU.
LOGITS = {"cpu": 2**23}
LOGITS_ELSEWHERE = 2**27


def _cut(kernel, *arrays):
    """[B, T, ...] -> [n, B, T / n, ...] with the least n, a divisor of T, that keeps to LOGITS. Time is cut and not the
    batch, which may lie on several devices."""
    B, T = arrays[0].shape[:2]
    limit = LOGITS.get(platform(), LOGITS_ELSEWHERE)
    wanted = 1 if kernel is None else -(-B * T * kernel.shape[1] // limit)
    n = next(n for n in range(1, T + 1) if T % n == 0 and (n >= wanted or n == T))
    return tuple(jnp.moveaxis(x.reshape(B, n, T // n, *x.shape[2:]), 1, 0) for x in arrays)


def _joined(x):
    """What `_cut` made of an array, put together."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])
