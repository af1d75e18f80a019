"""A BERT-style encoder: exactly BERT by default, and by its fields the form of later models."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.models.layers import drop, embed, is_dropped, product
from research.models.transformer import (
    ACTIVATIONS,
    NORMAL,
    NORMS,
    STD,
    check,
    embedded,
    masked_bias,
    rows_of,
    through_blocks,
)

HEADS = {  # a head: what it tells
    "masked": ("masked",),  # a token that is masked, by its place: BERT's masked language model
    "next": ("next",),  # whether the second part of a text follows the first: 0 it does, 1 it does not
    "pretraining": ("masked", "next"),
    "label": ("label",),  # of a text
    "tags": ("tags",),  # a label a token
    "span": ("span",),  # its start and its end
    "several": (),  # what each of the model's parts tells
    "pooled": ("states", "pooled"),  # what the other heads would read
    "none": ("states",),
}
POOLED = ("next", "label", "pooled")  # what is told of a whole text by its first token, [CLS]
EPSILON = 1e-12


class Encoder(nn.Module):
    """Devlin et al. 2019 (BERT, arXiv:1810.04805): post-norm, learned positions, an embedding of the part of a text,
    exact GELU.

    What layer i makes of tokens is `clone(layers=i, head="none")` with the same variables; of 0 the embeddings.
    """

    layers: int = 12
    heads: int = 12
    width: int = 768
    hidden: int | None = None  # of the feed-forward layers; None: 4 width
    context: int = 512  # how many positions there are
    types: int = 2  # parts of a text that are told apart
    positions: str = "learned"  # or sinusoidal, rotary, none
    norm: str = "layer"  # or rms
    norm_first: bool = False  # pre-norm: norms stand before what they are for, and one behind all
    activation: str = "gelu"  # or gelu_tanh, swiglu
    head: str = "masked"  # or one of HEADS
    dropout: float = 0.1  # on the embedding, the attention's weights, what half a block adds, what is classified
    remat: bool = False  # the backward pass computes each block again: memory of one block, a third more time
    scan: bool = False  # layers stacked under nn.scan: one compiled block for all of them, the same numbers
    vocabulary: int | None = None
    unused_rows: int = 0  # of the table, after the vocabulary: weights are often padded to a multiple of 64
    classes: int | None = None  # of a label or of tags
    parts: tuple[str, ...] = ()  # of head several: NAME:label:CLASSES, NAME:tags:CLASSES or NAME:span:2, a head each
    dtype: str = "float32"

    def __call__(self, tokens, mask=None, types=None, positions=None, places=None, *, train=False):
        """What the head tells, float32: masked [B, T or P, V], next [B, 2], label [B, classes], tags [B, T, classes],
        span [B, T, 2], states [B, T, D], pooled [B, D]; of a head that tells several things all, by name.

        Arguments as for `read`.
        """
        heads = self.read(tokens, mask, types, positions, places, train=train)
        found = {name: x if kernel is None else product(x, kernel, bias, self.dtype)
                 for name, (x, kernel, bias) in heads.items()}  # fmt: skip
        return found if len(found) > 1 or self.head == "several" else found.popitem()[1]

    @nn.compact
    def read(self, tokens, mask=None, types=None, positions=None, places=None, *, train=False):
        """What the head reads, its kernel and its bias, of each thing that it tells: {name: (float32[..., D], [D, F],
        [F])}; of states and pooled None in place of the two.

        Args:
            tokens: int32[B, T].
            mask: [B, T], 0 for padding, which no token sees.
            types: int32[B, T], of which part of its text a token is; the first one, if not given.
            positions: int32[B, T]; the places in the row, if not given.
            places: int32[B, P], where `masked` tells the tokens; everywhere, if not given.
        """
        D, heads = self.width, heads_of(self)
        told = HEADS.get(self.head) or [kind for _, _, kind, _ in heads]
        check(self, self.heads, HEADS, tokens, positions)
        if positions is None:
            positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]  # [1, T]
        zeros = nn.initializers.zeros
        active = is_dropped(self.dropout, train)
        dropout = self.make_rng("dropout") if active else jax.random.key(0)  # where it is not drawn, any key will do
        dropped = lambda x, i: drop(jax.random.fold_in(dropout, self.layers + i), x, self.dropout) if active else x

        def normalised(x, name):
            scale = self.param(f"{name}_norm_scale", nn.initializers.ones, (D,), jnp.float32)
            return NORMS[self.norm](x, scale, self.param(f"{name}_norm_bias", zeros, (D,), jnp.float32), EPSILON)

        def weights(name, size):
            kernel = self.param(f"{name}_kernel", NORMAL, (D, size), jnp.float32)
            return kernel, self.param(f"{name}_bias", zeros, (size,), jnp.float32)

        table, x = embedded(self, tokens, positions)
        parts = self.param("type_embedding", NORMAL, (self.types, D), jnp.float32)
        x = x + embed(parts, jnp.zeros_like(tokens) if types is None else types)
        x = dropped(normalised(x, "embedding"), 0)
        own = {"kv_heads": self.heads, "bias": True, "residual_std": STD, "norm_first": self.norm_first}
        fixed = {"epsilon": EPSILON, "causal": False}
        x, _ = through_blocks(self, x, positions, {"mask": mask}, dropout, train, **own, **fixed)
        x = normalised(x, "last") if self.norm_first else x

        pooled = None
        if any(name in POOLED for name in told):
            pooled = jnp.tanh(product(x[:, 0], *weights("pooler", D), self.dtype))
        found = {"states": (x, None, None), "pooled": (pooled, None, None)}
        if "masked" in told:
            y = x if places is None else jnp.take_along_axis(x, places[..., None], axis=1)
            y = normalised(ACTIVATIONS[self.activation](product(y, *weights("transform", D), self.dtype)), "transform")
            bias = self.param("masked_bias", zeros, (rows_of(self),), jnp.float32)
            found["masked"] = y, table.T, masked_bias(self, bias)
        if "next" in told:
            found["next"] = pooled, *weights("next", 2)
        for prefix, name, kind, size in heads:
            y = pooled if kind == "label" else x
            found[name] = y if kind == "span" else dropped(y, 1), *weights(prefix, size)
        return {name: found[name] for name in ([name for _, name, _, _ in heads] or told)}


def heads_of(model):
    """The linear heads of an Encoder: [(how its parameters begin, its name, what it tells, of how many values)]."""
    if model.head == "several":
        parts = [part.split(":") for part in model.parts]
        return [(f"{name}_head", name, kind, int(size)) for name, kind, size in parts]
    sizes = {"label": model.classes, "tags": model.classes, "span": 2}
    return [("head", model.head, model.head, sizes[model.head])] if model.head in sizes else []
