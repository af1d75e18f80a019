"""A GPT-style decoder: exactly GPT-2 by default, and by its fields the form of later models."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.models.attention import Before
from research.models.layers import drop, is_dropped, product
from research.models.transformer import NORMAL, NORMS, STD, check, embedded, masked_bias, rows_of, through_blocks

HEADS = ("tokens", "label", "tags", "span", "none")


class Decoder(nn.Module):
    """Radford et al. 2019 (GPT-2): pre-norm, learned positions, tanh GELU, a tied head; what projects into the residual
    begins smaller by sqrt(2 layers).
    """

    layers: int = 12
    heads: int = 12
    kv_heads: int | None = None  # heads of keys and values, each shared by heads / kv_heads; None: as many as heads
    width: int = 768
    hidden: int | None = None  # of the feed-forward layers; None: 4 width
    context: int = 1024  # how many positions there are
    positions: str = "learned"  # or sinusoidal, rotary, none
    norm: str = "layer"  # or rms
    activation: str = "gelu_tanh"  # or gelu, swiglu
    bias: bool = True  # of norms and products
    head: str = "tokens"  # or label (of a text, by its last token), tags (a label a token), span (start, end), none
    tied: bool = True  # one matrix embeds the tokens and gives the logits of tokens
    dropout: float = 0.0  # on the embedding, the attention's weights, and what each half of a block adds
    remat: bool = False  # the backward pass computes each block again: memory of one block, a third more time
    scan: bool = (
        False  # layers stacked under nn.scan: one compiled block for all of them, the same numbers; not for decode
    )
    vocabulary: int | None = None
    unused_rows: int = 0  # of the table, after the vocabulary: weights are often padded to a multiple of 64
    classes: int | None = None  # of a label or of tags
    dtype: str = "float32"

    def __call__(self, tokens, mask=None, positions=None, segments=None, *, train=False):
        """float32: logits [B, T, V], of a label [B, classes], of tags [B, T, classes], of a span's start and end
        [B, T, 2]; without a head what it would read, [B, T, D]. Arguments as for `features`.
        """
        x, kernel, bias = self.features(tokens, mask, positions, segments, train=train)
        if self.head == "label":
            places = jnp.arange(tokens.shape[1])
            last = jnp.full(len(x), places[-1]) if mask is None else jnp.where(mask != 0, places, 0).max(axis=1)
            x = x[jnp.arange(len(x)), last]
        return x if kernel is None else product(x, kernel, bias, self.dtype)

    def features(self, tokens, mask=None, positions=None, segments=None, *, train=False):
        """What the head reads, and its kernel and bias: float32[B, T, D], [D, V or classes], [classes] or None.

        Args:
            tokens: int32[B, T].
            mask: [B, T], 0 for padding, which stands right of all tokens, where none of them looks: it tells which is
                the last, and no more.
            positions: int32[B, T], of each token in its document; its place in the row, if not given.
            segments: int32[B, T]: a token sees those before it of its own number alone; one document, if not given.
        """
        return self._read(tokens, positions, segments, train)[:3]

    def encode(self, tokens, mask, shared=False):
        """Reads prompts for `decode` to go on from.

        Args:
            tokens: int32[B, P].
            mask: [B, P], 0 where there is no token: left of the prompt.
            shared: whether several texts will go on from each prompt, which is then kept once for all of them.

        Returns:
            what the texts of a prompt share; and what each has of its own, in B rows.
        """
        places = jnp.cumsum(mask != 0, axis=1, dtype=jnp.int32)
        *_, kept = self._read(tokens, jnp.maximum(places - 1, 0), (mask != 0).astype(jnp.int32), False)
        kept = [tuple(x.reshape(-1, *x.shape[2:]) for x in layer) for layer in kept]
        lengths = places[:, -1]
        if shared:
            return (kept, mask), (jax.tree.map(lambda x: x[:, :0], kept), jnp.zeros_like(lengths), lengths)
        longest = lengths.max()
        kept = jax.tree.map(lambda x: jnp.roll(x, longest - x.shape[1], axis=1), kept)  # no column that none needs
        return None, (kept, jnp.broadcast_to(longest, lengths.shape), lengths)

    def widen(self, carry, room):
        """The carry with so many columns for the tokens of each text."""
        own, *rest = carry
        return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, room - x.shape[1]), (0, 0))), own), *rest

    def decode(self, memory, carry, token):
        """The next token of each text: int32[R] -> logits float32[R, V], and the new carry.

        The R texts are as many for each prompt, side by side.
        """
        own, columns, positions = carry
        prompts, seen = ([None] * self.layers, None) if memory is None else memory
        first, column = columns - positions, columns[0]  # below 0 where the text begins in a prompt that is shared
        before = [Before(prompt, seen, layer, first, column) for prompt, layer in zip(prompts, own)]
        x, kernel, bias, own = self._read(token[:, None], positions[:, None], None, False, before)
        return product(x, kernel, bias, self.dtype)[:, 0], (own, columns + 1, positions + 1)

    @nn.compact
    def _read(self, tokens, positions, segments, train, before=None):
        """What the head reads, its kernel and bias, and what each layer keeps of the tokens.

        Args:
            before: [Before] by layer, where tokens [R, 1] are the next ones of texts.
        """
        V, D, L = rows_of(self), self.width, self.layers
        G = self.heads if self.kv_heads is None else self.kv_heads
        check(self, G, HEADS, tokens, positions)
        if positions is None:
            positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]  # [1, T]
        table, x = embedded(self, tokens, positions)
        active = is_dropped(self.dropout, train)
        dropout = self.make_rng("dropout") if active else jax.random.key(0)  # where it is not drawn, any key will do
        if active:
            x = drop(jax.random.fold_in(dropout, L), x, self.dropout)
        own = {"kv_heads": G, "bias": self.bias, "residual_std": STD * (2 * L) ** -0.5}
        gpt = {"norm_first": True, "epsilon": 1e-5, "causal": True}
        x, kept = through_blocks(self, x, positions, {"segments": segments}, dropout, train, before, **own, **gpt)
        zeros = nn.initializers.zeros
        bias = self.param("norm_bias", zeros, (D,), jnp.float32) if self.bias else None
        x = NORMS[self.norm](x, self.param("norm_scale", nn.initializers.ones, (D,), jnp.float32), bias)
        if self.head == "tokens" and self.tied:
            return x, table.T, masked_bias(self, None), kept
        outputs = {"tokens": V, "label": self.classes, "tags": self.classes, "span": 2, "none": None}[self.head]
        if outputs is None:
            return x, None, None, kept
        kernel = self.param("head_kernel", NORMAL, (D, outputs), jnp.float32)
        has_bias = self.head in ("tags", "span")  # as GPT-2's classifiers have it
        bias = self.param("head_bias", zeros, (outputs,), jnp.float32) if has_bias else None
        return x, kernel, masked_bias(self, bias) if self.head == "tokens" else bias, kept
