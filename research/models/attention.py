"""Transformer layers: attention and its masks, positions, norms, activations, and the block made of them.

attention(q, k, v) = softmax(q k^T / sqrt K) v for each head (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from research.errors import UserError, pick
from research.models.layers import drop, is_dropped, materialized, product, wide

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
        [B, H, T, K], of the dtype of v.
    """
    if jax.default_backend() != "cpu" and key is None:
        return _fused(q, k, v, causal, mask, segments, dtype)
    (B, H, T, K), (G, S) = q.shape, k.shape[1:3]
    q = q.reshape(B, G, H // G, T, K)
    blocks = causal and T == S and T % QUERIES == 0
    size = QUERIES if blocks else T
    outputs = []
    for start in range(0, T, size):
        rows, seen = slice(start, start + size), slice(0, start + size if blocks else S)
        kept = None
        if key is not None:
            kept = drop(jax.random.fold_in(key, start), jnp.ones((B, G, H // G, size, seen.stop), v.dtype), dropout)
        visible = _visible(causal, mask, segments, rows, seen)
        outputs.append(_core(q[..., rows, :], k[:, :, seen], v[:, :, seen], visible, kept))
    return jnp.concatenate(outputs, axis=3).reshape(B, H, T, -1)


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
    """By the device's kernel: cuDNN's where it takes these heads, else what XLA makes of it."""
    kernel = (
        "cudnn" if jax.default_backend() == "gpu" and dtype == "bfloat16" and q.shape[-1] in (32, 64, 128) else None
    )
    visible = _visible(False, mask, segments, slice(0, q.shape[2]), slice(0, k.shape[2]))
    visible = None if visible is None else visible[:, 0]  # [B, 1, T or 1, S]
    heads_last = (jnp.swapaxes(x, 1, 2).astype(dtype) for x in (q, k, v))
    y = jax.nn.dot_product_attention(*heads_last, mask=visible, is_causal=causal, implementation=kernel)
    return jnp.swapaxes(y, 1, 2).astype(v.dtype)


def rotary(x, positions, base=10_000.0):
    """Turns each pair (i, i + K/2) of a head by its position times base^(-2i/K). Su et al. 2021 (arXiv:2104.09864).

    Args:
        x: [B, H, T, K], K even.
        positions: int[B or 1, T].
    """
    half = x.shape[-1] // 2
    rates = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, None, :, None].astype(jnp.float32) * rates.reshape(1, 1, 1, -1)
    a, b, cos, sin = x[..., :half], x[..., half:], jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def sinusoidal(positions, width):
    """float32[..., width]: sines of the position at rates from 1 to 1/10000, then the cosines.

    Vaswani et al. 2017, section 3.5, where the two alternate.
    """
    half = width // 2
    rates = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None].astype(jnp.float32) * rates.reshape(*[1] * positions.ndim, -1)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def layer_norm(x, scale, bias=None, epsilon=1e-5):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis. Ba et al. 2016 (arXiv:1607.06450)."""
    y = _normalised(x, epsilon, True) * wide(scale, x)
    return y if bias is None else y + wide(bias, x)


def rms_norm(x, scale, bias=None, epsilon=1e-5):
    """x / sqrt(mean square + epsilon) * scale + bias. Zhang and Sennrich 2019 (arXiv:1910.07467)."""
    y = _normalised(x, epsilon, False) * wide(scale, x)
    return y if bias is None else y + wide(bias, x)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _normalised(x, epsilon, centred):
    return _normalised_forward(x, epsilon, centred)[0]


def _normalised_forward(x, epsilon, centred):
    if centred:
        x = x - x.mean(axis=-1, keepdims=True)
    factor = lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + epsilon)
    y = materialized(x * factor)
    return y, (y, factor)


def _normalised_backward(epsilon, centred, saved, g):
    y, factor = saved
    g = materialized(g)
    inner = (g * y).mean(axis=-1, keepdims=True)
    mean = g.mean(axis=-1, keepdims=True) if centred else 0.0
    return (materialized((g - mean - y * inner) * factor),)


_normalised.defvjp(_normalised_forward, _normalised_backward)


def _with_derivative(function):
    """An elementwise function that gives (value, derivative), as one whose gradient keeps the derivative alone:
    autodiff would keep x and what the derivative is made of."""
    rule = jax.custom_vjp(lambda x: function(x)[0])
    rule.defvjp(function, lambda derivative, g: (g * derivative,))
    return rule


def _gelu_tanh(x):
    c, a = (2 / jnp.pi) ** 0.5, 0.044715
    t = jnp.tanh(c * x * (1 + a * x * x))
    return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * a * x * x)


def _gelu(x):
    area = 0.5 * (1 + lax.erf(x * 0.5**0.5))
    return x * area, area + x * jnp.exp(-0.5 * x * x) * (2 * jnp.pi) ** -0.5


# Hendrycks and Gimpel 2016 (arXiv:1606.08415): exact, as BERT has it, and by tanh, as GPT-2.
gelu, gelu_tanh = _with_derivative(_gelu), _with_derivative(_gelu_tanh)

POSITIONS = ("learned", "sinusoidal", "rotary", "none")
ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "swiglu": jax.nn.silu}
NORMS = {"layer": layer_norm, "rms": rms_norm}


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): pre-norm, as GPT-2."""

    heads: int
    kv_heads: int
    hidden: int
    residual_std: float
    norm: str
    activation: str
    bias: bool
    rotary: bool
    dropout: float
    dtype: str

    @nn.compact
    def __call__(self, x, keys, positions, segments, train, before=None):
        """What the block makes of x, and the keys and values of its tokens.

        Args:
            x: float32[B, T, D].
            keys: {"params": key, "dropout": key}, of this layer: the same whether layers are stacked or not.
            positions: int32[B or 1, T].
            segments: int32[B, T] or None.
            before: Before, where x is the next token alone of texts that were read: T is 1.

        Returns:
            float32[B, T, D]; and keys and values, [B, G, T, K], or `own` of `before` with the token in it.
        """
        (B, T, D), H, G = x.shape, self.heads, self.kv_heads
        K, gated = D // H, self.activation == "swiglu"
        drawn, dropout = iter(jax.random.split(keys["params"], 4)), jax.random.split(keys["dropout"], 3)
        norm, act = pick(NORMS, self.norm, "config.model.norm"), ACTIVATIONS[self.activation]

        def param(name, value, *shape):
            return self.param(name, lambda _: value(shape))

        def kernel(name, rows, columns, std=0.02):
            key = next(drawn)
            return param(name, lambda shape: std * jax.random.normal(key, shape), rows, columns)

        bias = lambda name, size: param(name, jnp.zeros, size) if self.bias else None
        normalised = lambda x, name: norm(x, param(f"{name}_scale", jnp.ones, D), bias(f"{name}_bias", D))
        active = is_dropped(self.dropout, train)
        dropped = lambda y, key: drop(key, y, self.dropout) if active else y

        y = normalised(x, "attention_norm")
        y = product(y, kernel("qkv_kernel", D, (H + 2 * G) * K), bias("qkv_bias", (H + 2 * G) * K), self.dtype)
        y = jnp.moveaxis(y.reshape(B, T, H + 2 * G, K), 2, 1)  # [B, H + 2G, T, K]
        q, k, v = y[:, :H], y[:, H : H + G], y[:, H + G :]
        if self.rotary:
            q, k = rotary(q, positions), rotary(k, positions)
        if before is None:
            own = {"dropout": self.dropout, "key": dropout[0]} if active else {}
            y, kept = attend(q, k, v, causal=True, segments=segments, dtype=self.dtype, **own), (k, v)
        else:
            y, kept = attend_before(q, k, v, before)
        y = jnp.moveaxis(y, 1, 2).reshape(B, T, D)
        out = kernel("attention_out_kernel", D, D, self.residual_std), bias("attention_out_bias", D)
        x = x + dropped(product(y, *out, self.dtype), dropout[1])

        y = normalised(x, "mlp_norm")
        F = self.hidden * 2 if gated else self.hidden
        y = product(y, kernel("mlp_in_kernel", D, F), bias("mlp_in_bias", F), self.dtype)
        y = act(y[..., : F // 2]) * y[..., F // 2 :] if gated else act(y)
        out = kernel("mlp_out_kernel", self.hidden, D, self.residual_std), bias("mlp_out_bias", D)
        return x + dropped(product(y, *out, self.dtype), dropout[2]), kept


def check(width, heads, kv_heads, positions, activation):
    """Raises the error of fields that do not go together.

    Raises:
        UserError: 2.
    """
    divisors = lambda n: ", ".join(str(d) for d in range(1, n + 1) if n % d == 0)
    if heads < 1 or width % heads:
        raise UserError(
            2,
            f"config.model.heads: {heads} does not divide config.model.width {width}; it may be one of "
            f"{divisors(width)}",
        )
    if kv_heads < 1 or heads % kv_heads:
        raise UserError(
            2,
            f"config.model.kv_heads: {kv_heads} does not divide config.model.heads {heads}; it may be one of "
            f"{divisors(heads)}",
        )
    if positions == "rotary" and width // heads % 2:
        raise UserError(2, f"config.model.heads: {heads} heads of width {width // heads}: rotary wants an even one")
    pick(dict.fromkeys(POSITIONS), positions, "config.model.positions")
    pick(ACTIVATIONS, activation, "config.model.activation")
