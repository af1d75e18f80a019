"""Transformer layers: positions, norms, activations, the block made of them and of attention, and a stack of blocks."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.errors import UserError, pick
from research.models.attention import HIDDEN, attend, attend_before
from research.models.layers import drop, embed, is_dropped, materialized, product, wide
from research.randomness import draw

STD = 0.02  # with which weights begin
NORMAL = partial(draw, nn.initializers.normal(STD))


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
    """Attention and a feed-forward layer, each added to what it reads: pre-norm, x + f(norm(x)), as GPT-2 has it; or
    post-norm, norm(x + f(x)), as Vaswani et al. 2017 and BERT.
    """

    heads: int
    kv_heads: int
    hidden: int
    residual_std: float
    norm: str
    norm_first: bool  # pre-norm
    epsilon: float  # of the norms
    activation: str
    bias: bool
    rotary: bool
    causal: bool
    dropout: float
    dtype: str

    @nn.compact
    def __call__(self, x, keys, positions, seen, train, before=None):
        """What the block makes of x, and the keys and values of its tokens.

        Args:
            x: float32[B, T, D].
            keys: {"params": key, "dropout": key}, of this layer: the same whether layers are stacked or not.
            positions: int32[B or 1, T].
            seen: {"mask" or "segments": int32[B, T] or None}: see `attend`.
            before: Before, where x is the next token alone of texts that were read: T is 1.

        Returns:
            float32[B, T, D]; and keys and values, [B, G, T, K], or `own` of `before` with the token in it.
        """
        (B, T, D), H, G = x.shape, self.heads, self.kv_heads
        K, gated = D // H, self.activation == "swiglu"
        drawn, dropout = iter(jax.random.split(keys["params"], 4)), jax.random.split(keys["dropout"], 3)
        norm, act = NORMS[self.norm], ACTIVATIONS[self.activation]

        def param(name, value, *shape):
            return self.param(name, lambda _: value(shape))

        def kernel(name, rows, columns, std=STD):
            key = next(drawn)
            return param(name, lambda shape: std * draw(jax.random.normal, key, shape), rows, columns)

        bias = lambda name, size: param(name, jnp.zeros, size) if self.bias else None
        normalised = lambda x, name: norm(x, param(f"{name}_scale", jnp.ones, D), bias(f"{name}_bias", D), self.epsilon)
        first = lambda x, name: normalised(x, name) if self.norm_first else x
        last = lambda x, name: x if self.norm_first else normalised(x, name)
        active = is_dropped(self.dropout, train)
        dropped = lambda y, key: drop(key, y, self.dropout) if active else y

        y = first(x, "attention_norm")
        y = product(y, kernel("qkv_kernel", D, (H + 2 * G) * K), bias("qkv_bias", (H + 2 * G) * K), self.dtype)
        y = jnp.moveaxis(y.reshape(B, T, H + 2 * G, K), 2, 1)  # [B, H + 2G, T, K]
        q, k, v = y[:, :H], y[:, H : H + G], y[:, H + G :]
        if self.rotary:
            q, k = rotary(q, positions), rotary(k, positions)
        if before is None:
            own = {"dropout": self.dropout, "key": dropout[0]} if active else {}
            y, kept = attend(q, k, v, causal=self.causal, **seen, dtype=self.dtype, **own), (k, v)
        else:
            y, kept = attend_before(q, k, v, before)
        y = jnp.moveaxis(y, 1, 2).reshape(B, T, D)
        out = kernel("attention_out_kernel", D, D, self.residual_std), bias("attention_out_bias", D)
        x = last(x + dropped(product(y, *out, self.dtype), dropout[1]), "attention_norm")

        y = first(x, "mlp_norm")
        F = self.hidden * 2 if gated else self.hidden
        y = product(y, kernel("mlp_in_kernel", D, F), bias("mlp_in_bias", F), self.dtype)
        y = act(y[..., : F // 2]) * y[..., F // 2 :] if gated else act(y)
        out = kernel("mlp_out_kernel", self.hidden, D, self.residual_std), bias("mlp_out_bias", D)
        return last(x + dropped(product(y, *out, self.dtype), dropout[2]), "mlp_norm"), kept


def rows_of(model):
    """Returns V, the number of rows of a model's table."""
    return model.vocabulary + model.unused_rows


def masked_bias(model, bias):
    """Adds a large negative bias for the rows that no token uses: float32[V] or None -> float32[V] or None."""
    if not model.unused_rows:
        return bias
    hidden = np.where(np.arange(rows_of(model)) < model.vocabulary, 0.0, HIDDEN).astype(np.float32)
    return jnp.asarray(hidden) if bias is None else bias + hidden


def embedded(module, tokens, positions):
    """The table of a Decoder or an Encoder that is being applied, [V, D], and its tokens and their positions by it."""
    table = module.param("embedding", NORMAL, (rows_of(module), module.width), jnp.float32)
    x = embed(table, tokens)
    if module.positions == "learned":
        x = x + module.param("position_embedding", NORMAL, (module.context, module.width), jnp.float32)[positions]
    return table, x + sinusoidal(positions, module.width) if module.positions == "sinusoidal" else x


def through_blocks(module, x, positions, seen, dropout, train, before=None, **fields):
    """x through the layers of a Decoder or an Encoder that is being applied: what they make of it, and what each keeps.

    The parameters are those of block0, block1, ...; or of blocks, with a first axis of layers, under nn.scan, which
    keeps nothing.

    Args:
        x, positions, seen: see Block.
        dropout: a key.
        before: [Before] by layer, where x is the next token alone of texts.
        fields: of Block, beside those that the module has by the same names.
    """
    fields |= {name: getattr(module, name) for name in ("heads", "norm", "activation", "dropout", "dtype")}
    fields |= {"hidden": 4 * module.width if module.hidden is None else module.hidden}
    fields |= {"rotary": module.positions == "rotary"}
    params = module.make_rng("params") if module.is_initializing() else jax.random.key(0)
    each = jax.vmap(jax.random.fold_in, (None, 0))
    keys = {name: each(key, jnp.arange(module.layers)) for name, key in (("params", params), ("dropout", dropout))}
    layer, kept = nn.remat(Block, static_argnums=(5,)) if module.remat else Block, []
    if module.scan:
        one = lambda block, x, keys: (block(x, keys, positions, seen, train)[0], None)
        own = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "in_axes": 0, "length": module.layers}
        return nn.scan(one, **own)(layer(**fields, name="blocks"), x, keys)[0], kept
    for i in range(module.layers):
        own = jax.tree.map(lambda key: key[i], keys)
        one = layer(**fields, name=f"block{i}")
        x, new = one(x, own, positions, seen, train, None if before is None else before[i])
        kept.append(new)
    return x, kept


def check(model, kv_heads, kinds, tokens, positions):
    """Raises the error of fields of a Decoder or an Encoder that do not go together.

    Args:
        kinds: the heads that there are.
        tokens: int32[B, T].
        positions: int32[B or 1, T], or None for each token's place in its row. Traced ones are taken to be below T, as
            in packed documents.

    Raises:
        UserError: 2.
    """
    width, heads = model.width, model.heads
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
    if model.positions == "rotary" and width // heads % 2:
        raise UserError(2, f"config.model.heads: {heads} heads of width {width // heads}: rotary wants an even one")
    pick(dict.fromkeys(POSITIONS), model.positions, "config.model.positions")
    pick(NORMS, model.norm, "config.model.norm")
    pick(ACTIVATIONS, model.activation, "config.model.activation")
    pick(dict.fromkeys(kinds), model.head, "config.model.head")
    if model.head == "several" and not model.parts:
        raise UserError(2, "config.model.head: several wants the parts of a mixture; config.data.name=mixture has some")
    if model.head in ("label", "tags") and model.classes is None:
        raise UserError(2, f"config.model.head: {model.head} wants config.model.classes; the data have none")
    if positions is not None and model.positions != "learned":  # they have no table that a position could exceed
        return
    needed = tokens.shape[1]
    if positions is not None and not isinstance(positions, jax.core.Tracer):
        needed = int(np.asarray(positions).max(initial=-1)) + 1
    if needed > model.context:
        raise UserError(2, f"config.model.context: {model.context} positions; {needed} tokens are read; set it to "
                           f"{needed} or more, or config.data.max_len to {model.context}")  # fmt: skip
