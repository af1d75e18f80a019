"""Running text cut into stretches of words that are looked at together, each with its surroundings."""

import jax.numpy as jnp

STRETCH = 32  # words: T below; it divides L, where L is more


def stretches(x):
    """[B, L, ...] -> [B, L / T, T, ...]."""
    size = min(STRETCH, x.shape[1])
    return x.reshape(x.shape[0], x.shape[1] // size, size, *x.shape[2:])


def around(x, window):
    """For each stretch its words and the `window` before and behind: [B, L, ...] -> [B, L / T, T + 2 window, ...].

    Word t of a stretch is at place t + window of it; beyond the block all is 0. The window is at most a stretch.
    """
    each = stretches(x)
    nothing = jnp.zeros_like(each[:, :1])
    before = jnp.concatenate([nothing, each[:, :-1]], axis=1)[:, :, each.shape[2] - window :]
    behind = jnp.concatenate([each[:, 1:], nothing], axis=1)[:, :, :window]
    return jnp.concatenate([before, each, behind], axis=2)
