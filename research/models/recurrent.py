"""Recurrent networks on tokens: a classifier and a language model."""

import flax.linen as nn
import jax.numpy as jnp

from research.errors import UserError
from research.models.layers import HEAD_INIT, Dropout, embed, head, product
from research.models.rnn import Recurrent


class RecurrentClassifier(nn.Module):
    """Embeddings, recurrent layers, and a linear classifier on the largest value of each unit over the text.

    Max-pooling over time: Collobert and Weston 2008; over a bidirectional LSTM: Conneau et al. 2017 (arXiv:1705.02364).
    """

    cell: str = "lstm"
    embedding: int = 128
    width: int = 128  # of each direction
    layers: int = 1
    bidirectional: bool = True
    dropout: float = 0.0  # on embeddings, between layers, and before the classifier
    vocabulary: int | None = None
    classes: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tokens, mask, *, train=False):  # int32[B, T], [B, T] -> [B, classes]
        init = nn.initializers.normal(self.embedding**-0.5)
        table = self.param("embedding", init, (self.vocabulary, self.embedding), jnp.float32)
        x = Dropout(self.dropout)(embed(table, tokens), train=train)
        stack = {"width": self.width, "layers": self.layers, "cell": self.cell, "bidirectional": self.bidirectional}
        rnn = Recurrent(self.embedding, dropout=self.dropout, dtype=self.dtype, name="rnn", **stack)
        y, _ = rnn(x, mask, train=train)
        pooled = jnp.where(mask[..., None] > 0, y, -jnp.inf).max(axis=1)
        pooled = jnp.where(jnp.isfinite(pooled), pooled, 0)  # a row that is all padding
        return head(self.classes, self.dtype)(Dropout(self.dropout)(pooled, train=train))


class RecurrentLM(nn.Module):
    """A recurrent language model. Zaremba et al. 2014 (arXiv:1409.2329); tied: Press and Wolf 2017."""

    cell: str = "lstm"
    embedding: int = 200
    width: int = 200
    layers: int = 2
    tied: bool = False  # one matrix embeds the tokens and gives the logits
    dropout: float = 0.0  # on embeddings, between layers, and on outputs
    vocabulary: int | None = None
    dtype: str = "float32"

    def __call__(self, tokens, mask, *, train=False):  # int32[B, T], [B, T] -> float32[B, T, V]
        return product(*self.features(tokens, mask, train=train), dtype=self.dtype)

    def features(self, tokens, mask, *, train=False):
        """What the head reads, and its kernel and bias: [B, T, width], [width, V], [V]."""
        return self._read(tokens, mask, None, train)[:3]

    def encode(self, tokens, mask, shared=False):
        """Reads prompts, int32[B, P] and 0 where no token is, for `decode` to go on from: nothing, and the states."""
        return None, self._read(tokens, mask, None, False)[3]

    def decode(self, memory, carry, token):
        """The next token of each text: int32[R] -> logits [R, V], and the new states."""
        *x, states = self._read(token[:, None], jnp.ones((len(token), 1)), carry, False)
        return product(*x, dtype=self.dtype)[:, 0], states

    @nn.compact
    def _read(self, tokens, mask, states, train):
        if self.tied and self.embedding != self.width:
            raise UserError(
                2, f"config.model.embedding: {self.embedding} must be config.model.width {self.width} to be tied"
            )
        init = nn.initializers.normal(0.02 if self.tied else self.embedding**-0.5)
        table = self.param("embedding", init, (self.vocabulary, self.embedding), jnp.float32)
        x = Dropout(self.dropout)(embed(table, tokens), train=train)
        stack = {"width": self.width, "layers": self.layers, "cell": self.cell}
        rnn = Recurrent(self.embedding, dropout=self.dropout, dtype=self.dtype, name="rnn", **stack)
        y, states = rnn(x, mask, states, train=train)
        y = Dropout(self.dropout)(y, train=train)
        kernel = (
            table.T if self.tied else self.param("head_kernel", HEAD_INIT, (self.width, self.vocabulary), jnp.float32)
        )
        return y, kernel, self.param("head_bias", nn.initializers.zeros, (self.vocabulary,), jnp.float32), states
