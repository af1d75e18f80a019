"""Attention, its masks and its gradient; and that of one token to what was read before it.

attention(q, k, v) = softmax(q k^T / sqrt K) v for each head (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from research.backend import platform
from research.models.layers import drop, materialized

QUERIES = 128  # a block of queries of causal attention, which looks at the keys up to its own end alone
HIDDEN = -1e30  # the score of what a query may not see; finite, so that a row that sees nothing is no nan


def attend(q, k, v, *, causal=False, mask=None, segments=None, dropout=0.0, key=None, dtype="float32"):
    """softmax(q k^T / sqrt K) v.

    Args:
        q: [B, H, T, K].
        k, v: [B, G, S, K] with G a divisor of H: query head h looks at head h // (H / G), which is multi-head attention
            where G is H, multi-query attention (Shazeer 2019) where it is 1, else grouped (Ainslie et al. 2023).
        causal: query t sees keys 0 .. t.
        mask: [B, S], not 0 where a key may be seen.
        segments: int[B, S], where T is S: a query sees the keys of its own segment alone, as of packed documents.
        dropout: of the weights, where a key is given.
        dtype: what a GPU or TPU computes in; a CPU does in float32 whatever it is, which is no slower there.

    Returns:
        [B, H, T, K], of the dtype of v. A query that sees no key gets the mean of v, and no gradient.
    """
    if platform() != "cpu" and key is None:
        y = _fused(q, k, v, causal, mask, segments, dtype)
    else:
        y = _in_blocks(q, k, v, causal, mask, segments, dropout, key, dtype)
    if mask is None:  # each query sees itself
        return y
    visible = _visible(causal, mask, segments, slice(0, q.shape[2]), slice(0, k.shape[2]))[:, 0]
    return jnp.where(visible.any(axis=-1, keepdims=True), y, lax.stop_gradient(y))


def _in_blocks(q, k, v, causal, mask, segments, dropout, key, dtype):
    """Computes attention by matrix products; causal attention one block of queries at a time. Returns [B, H, T, K]."""
    (B, H, T, K), (G, S) = q.shape, k.shape[1:3]
    q = q.reshape(B, G, H // G, T, K)
    blocks = causal and T == S and T % QUERIES == 0
    size = QUERIES if blocks else T

    def attend_block(core, q, k, v, visible, key):
        shape = (*q.shape[:-1], k.shape[2])
        return core(q, k, v, visible, None if key is None else drop(key, jnp.ones(shape, v.dtype), dropout))

    # Off the CPU the backward pass computes weights and dropout again, so that no layer keeps arrays of [T, S].
    on_cpu = platform() == "cpu"
    one = partial(attend_block, _core) if on_cpu else jax.checkpoint(partial(attend_block, partial(_formula, dtype)))
    outputs = []
    for start in range(0, T, size):
        rows, seen = slice(start, start + size), slice(0, start + size if blocks else S)
        visible = _visible(causal, mask, segments, rows, seen)
        own = None if key is None else jax.random.fold_in(key, start)
        outputs.append(one(q[..., rows, :], k[:, :, seen], v[:, :, seen], visible, own))
    return jnp.concatenate(outputs, axis=3).reshape(B, H, T, -1)


def _formula(dtype, q, k, v, visible, kept):
    """Computes `_core` with the factors of its products rounded to `dtype`; scores, weights and sums are float32."""
    wide = jnp.promote_types(dtype, jnp.float32)
    scores = jnp.einsum("bgrtk,bgsk->bgrts", q.astype(dtype), k.astype(dtype), preferred_element_type=wide)
    scores = scores * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(scores if visible is None else jnp.where(visible, scores, HIDDEN))
    weights = (weights if kept is None else weights * kept).astype(dtype)
    return jnp.einsum("bgrts,bgsk->bgrtk", weights, v.astype(dtype), preferred_element_type=wide).astype(v.dtype)


@jax.custom_vjp
def _core(q, k, v, visible, kept):
    """Attention with a gradient by hand, which keeps the weights alone of what is [T, S].

    Args:
        q: [B, G, R, T, K]; k, v: [B, G, S, K].
        visible: bool that broadcasts to [B, G, R, T, S]; None: all.
        kept: [B, G, R, T, S], what dropout multiplies the weights by; None: nothing.

    Returns:
        [B, G, R, T, K].
    """
    return _core_forward(q, k, v, visible, kept)[0]


def _core_forward(q, k, v, visible, kept):
    scores = jnp.einsum("bgrtk,bgsk->bgrts", q, k) * q.shape[-1] ** -0.5
    if visible is not None:
        scores = jnp.where(visible, scores, HIDDEN)
    scores = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = materialized(scores / scores.sum(axis=-1, keepdims=True))
    y = jnp.einsum("bgrts,bgsk->bgrtk", weights if kept is None else weights * kept, v)
    return y, (q, k, v, weights, kept, y)


def _core_backward(saved, g):
    q, k, v, weights, kept, y = saved
    # Of the weights and their gradient, summed over the keys: the same for K products in place of S.
    inner = (g * y).sum(axis=-1, keepdims=True)
    g = materialized(g)
    dv = jnp.einsum("bgrts,bgrtk->bgsk", weights if kept is None else weights * kept, g)
    dweights = jnp.einsum("bgrtk,bgsk->bgrts", g, v)
    dweights = dweights if kept is None else dweights * kept
    dscores = materialized(weights * (dweights - inner) * q.shape[-1] ** -0.5)
    dq = jnp.einsum("bgrts,bgsk->bgrtk", dscores, k)
    dk = jnp.einsum("bgrts,bgrtk->bgsk", dscores, q)
    return dq, dk, dv, None, None


_core.defvjp(_core_forward, _core_backward)


class Before(NamedTuple):
    """What a layer has read of R texts.

    Rows of texts and heads are one axis: XLA's CPU copies a cache of more axes twice a token, to write into it.
    """

    shared: tuple | None  # keys and values, [B * G, P, K], of prompts that R / B texts side by side go on from
    seen: Any  # [B, P], not 0 where there is a token of the prompt
    own: tuple  # keys and values, [R * G, S, K], that each text has for itself
    first: Any  # int32[R], the column of its first token there
    column: Any  # int32[], where the next token comes


def attend_before(q, k, v, before):
    """Attention of one token a text to all that was read, and to itself.

    The texts of a prompt look at its keys by one product; nothing is copied for each.

    Args:
        q: [R, H, 1, K]; k, v: [R, G, 1, K], of the token.

    Returns:
        [R, H, 1, K], and `own` with the token in it.
    """
    (R, H, _, K), G = q.shape, k.shape[1]
    place = (0, before.column, 0)
    own = tuple(lax.dynamic_update_slice(old, x.reshape(R * G, 1, K), place) for old, x in zip(before.own, (k, v)))
    q = q.reshape(R * G, H // G, K) * K**-0.5
    columns = jnp.arange(own[0].shape[1])[None]
    visible = (columns >= before.first[:, None]) & (columns <= before.column)
    look = lambda q, keys, visible: jnp.where(
        jnp.repeat(visible, len(keys) // len(visible), axis=0)[:, None], jnp.einsum("nqk,nsk->nqs", q, keys), HIDDEN
    )
    scores = look(q, own[0], visible)
    if before.shared is None:
        y = jnp.einsum("nqs,nsk->nqk", jax.nn.softmax(scores), own[1])
        return y.reshape(R, H, 1, K), own
    (B, P), (keys, values) = before.seen.shape, before.shared
    swapped = lambda x, *shape: jnp.swapaxes(x.reshape(*shape, H // G, -1), 1, 2)
    together = lambda x: swapped(x, B, R // B, G).reshape(B * G, R // B * (H // G), -1)
    apart = lambda x: swapped(x, B, G, R // B).reshape(R * G, H // G, -1)
    to_shared = apart(look(together(q), keys, before.seen != 0))
    weights = jax.nn.softmax(jnp.concatenate([to_shared, scores], axis=-1))
    y = apart(jnp.einsum("nqs,nsk->nqk", together(weights[..., :P]), values))
    y = y + jnp.einsum("nqs,nsk->nqk", weights[..., P:], own[1])
    return y.reshape(R, H, 1, K), own


def _visible(causal, mask, segments, rows, seen):
    """bool [B or 1, 1, 1, T or 1, S]: what each query of `rows` may look at among the keys of `seen`; None: all."""
    parts = []
    if causal:
        ahead = jnp.arange(seen.stop)[None, :] <= jnp.arange(rows.start, rows.stop)[:, None]
        parts.append(ahead[None, None, None])
    if mask is not None:
        parts.append((mask[:, seen] != 0)[:, None, None, None, :])
    if segments is not None:
        parts.append((segments[:, rows, None] == segments[:, None, seen])[:, None, None])
    return None if not parts else jnp.all(jnp.stack(jnp.broadcast_arrays(*parts)), axis=0)


def _fused(q, k, v, causal, mask, segments, dtype):
    """Computes attention by the device's kernel: cuDNN's for heads that it supports, else XLA's. [B, H, T, K]."""
    T, S = q.shape[2], k.shape[2]
    cudnn = platform() == "gpu" and dtype == "bfloat16" and q.shape[-1] in (32, 64, 128)
    kernel = "cudnn" if cudnn else None
    visible = _visible(False, mask, segments, slice(0, T), slice(0, S))
    if visible is not None:  # [B, 1, T, S]: cuDNN does not broadcast over queries
        visible = jnp.broadcast_to(visible[:, 0], (q.shape[0], 1, T, S))
    heads_last = (jnp.swapaxes(x, 1, 2).astype(dtype) for x in (q, k, v))
    y = jax.nn.dot_product_attention(*heads_last, mask=visible, is_causal=causal, implementation=kernel)
    return jnp.swapaxes(y, 1, 2).astype(v.dtype)
