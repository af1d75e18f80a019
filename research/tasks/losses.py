"""Losses and measures that tasks share, each value by itself, and the masked sum of them."""

import jax
import jax.numpy as jnp

from research.errors import UserError


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
