"""Recurrent sequence-to-sequence: encoder, decoder, attention. Sutskever et al. 2014; Cho et al. 2014.

With h the decoder's output at a step, m_s the encoder's at place s of the source:

    additive         score = v . tanh(W h + K m_s)        Bahdanau et al. 2015, appendix A.1.2 (arXiv:1409.0473)
    multiplicative   score = h . K m_s                    Luong et al. 2015, section 3.1, "general" (arXiv:1508.04025)

    weights = softmax over the source's real places;  c = sum of weights m;  output = tanh(A [c; h])

The context enters behind the recurrence (Luong), so that training by teacher forcing runs the recurrence first and
attends for all steps at once. With input feeding (Luong, section 3.3) the output is joined to the next step's input,
which as in Bahdanau's decoder tells the recurrence what was attended to; its steps then come one by one.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from research.errors import UserError
from research.models.layers import HEAD_INIT, Dropout, drop, embed, product
from research.models.rnn import CELLS, Recurrent, step
from research.randomness import fold


class Memory(NamedTuple):
    """What the decoder knows of the source; all hypotheses on it share this."""

    values: jax.Array  # [B, S, M], the encoder's outputs
    keys: jax.Array  # [B, S, H]
    real: jax.Array  # bool[B, S], where the source is no padding


class Carry(NamedTuple):
    """What one decoding step hands to the next."""

    states: Any  # [layer] of arrays [B, H]
    fed: jax.Array  # [B, H] the step's output, where it is fed on; else [B, 0]


class Seq2Seq(nn.Module):
    """`encode` and `decode` (one step) are what generation needs; a call is training and scoring."""

    cell: str = "gru"
    embedding: int = 128
    width: int = 128  # H, of decoder and of each direction of the encoder
    layers: int = 2
    bidirectional: bool = False  # the encoder
    attention: str = "none"
    input_feeding: bool = False
    tied: bool = False  # one matrix embeds source and target and gives the logits
    dropout: float = 0.0  # on embeddings, between layers, and on outputs
    vocabulary: int | None = None
    dtype: str = "float32"

    def setup(self):
        if self.tied and self.embedding != self.width:
            raise UserError(
                2, f"config.model.embedding: {self.embedding} must be config.model.width {self.width} to be tied"
            )
        if self.input_feeding and self.attention == "none":
            raise UserError(2, "config.model.input_feeding: there is no attention whose output could be fed")
        normal, wide = nn.initializers.normal(self.embedding**-0.5), nn.initializers.glorot_uniform()
        table = (self.vocabulary, self.embedding)
        embedding = lambda name: self.param(name, normal, table, jnp.float32)
        self.source_embedding = embedding("embedding" if self.tied else "source_embedding")
        self.target_embedding = self.source_embedding if self.tied else embedding("target_embedding")
        stack = {"width": self.width, "layers": self.layers, "cell": self.cell, "dropout": self.dropout}
        fed = self.width if self.input_feeding else 0
        self.encoder = Recurrent(self.embedding, bidirectional=self.bidirectional, dtype=self.dtype, **stack)
        self.decoder = Recurrent(self.embedding + fed, dtype=self.dtype, **stack)
        memory = self.width * (2 if self.bidirectional else 1)
        if self.bidirectional:  # from both directions' states to the decoder's, for each layer and array
            bridge = lambda i, j: self.param(f"bridge{i}_{j}_kernel", wide, (memory, self.width), jnp.float32)
            self.bridge = [[bridge(i, j) for j in range(CELLS[self.cell].states)] for i in range(self.layers)]
        if self.attention != "none":
            self.key_kernel = self.param("attention_key_kernel", wide, (memory, self.width), jnp.float32)
            self.output_kernel = self.param(
                "attention_output_kernel", wide, (memory + self.width, self.width), jnp.float32
            )
        if self.attention == "additive":
            self.query_kernel = self.param("attention_query_kernel", wide, (self.width, self.width), jnp.float32)
            narrow = nn.initializers.normal(self.width**-0.5)
            self.score = self.param("attention_score_kernel", narrow, (self.width, 1), jnp.float32)
        if not self.tied:
            self.logits_kernel = self.param("logits_kernel", HEAD_INIT, (self.width, self.vocabulary), jnp.float32)
        self.logits_bias = self.param("logits_bias", nn.initializers.zeros, (self.vocabulary,), jnp.float32)
        self.drop = Dropout(self.dropout)

    def __call__(self, source, source_mask, before, mask, *, train=False, sampling_rate=0.0):
        """Logits of each target token, given the source and the tokens before it.

        Args:
            source: int32[B, S], source_mask [B, S]: 0 where it is padding, at the right.
            before: int32[B, T], the token before each of the target; mask [B, T], 0 where the target is padding.
            sampling_rate: chance that a step of training reads the model's own most likely token in place of the
                target's (scheduled sampling; Bengio et al. 2015, arXiv:1506.03099).

        Returns:
            float32[B, T, V].
        """
        memory, carry = self.encode(source, source_mask, train=train)
        if train and not (isinstance(sampling_rate, (int, float)) and sampling_rate == 0):
            return self._sampled(memory, carry, before, sampling_rate)
        x = self.drop(embed(self.target_embedding, before), train=train).astype(self.dtype)  # [B, T, E]
        if self.input_feeding:
            h = self._fed(memory, carry, x, train)
        else:
            h, _ = self.decoder(x, mask, carry.states, train=train)
            h, _ = self._attend(memory, h)
        return self._logits(self.drop(h, train=train))

    def encode(self, source, mask, *, train=False):
        """source int32[B, S], mask [B, S] -> Memory, and the Carry that decoding begins with."""
        real = mask > 0
        x = self.drop(embed(self.source_embedding, source), train=train)
        values, states = self.encoder(x, real, train=train)
        if self.bidirectional:
            through = lambda state, kernel: jnp.tanh(state @ kernel.astype(self.dtype))
            states = [tuple(map(through, layer, kernels)) for layer, kernels in zip(states, self.bridge)]
        keys = values @ self.key_kernel.astype(self.dtype) if self.attention != "none" else values[..., :0]
        fed = jnp.zeros((source.shape[0], self.width if self.input_feeding else 0), self.dtype)
        return Memory(values, keys, real), Carry(states, fed)

    def decode(self, memory, carry, token):
        """A step of generation: int32[R] -> logits float32[R, V], attention weights [R, S] (zeros without), Carry.

        The R rows are hypotheses, as many for each of the memory's B sources, side by side.
        """
        x = embed(self.target_embedding, token).astype(self.dtype)
        h, weights, carry = self._step(self.decoder.weights, memory, carry, x)
        return self._logits(h), weights, carry

    def _step(self, weights, memory, carry, x, between=lambda i, x: x):
        """One step. `weights` are the decoder's, asked for outside of any loop: Linen makes them where first asked."""
        x = jnp.concatenate([x, carry.fed], axis=-1)
        h, states = step(self.cell, weights, carry.states, x, between)
        h, attended = self._attend(memory, h.reshape(memory.real.shape[0], -1, h.shape[-1]))
        h = h.reshape(-1, h.shape[-1])
        return h, attended.reshape(-1, attended.shape[-1]), Carry(states, h if self.input_feeding else carry.fed)

    def _attend(self, memory, h):
        """[B, T, H] -> outputs [B, T, H], weights [B, T, S]."""
        if self.attention == "none":
            return h, jnp.zeros((*h.shape[:2], memory.real.shape[1]), h.dtype)
        if self.attention == "additive":
            queries = h @ self.query_kernel.astype(self.dtype)
            scores = additive_scores(queries, memory.keys, self.score[:, 0].astype(self.dtype))
        else:
            scores = jnp.einsum("bth,bsh->bts", h, memory.keys)
        scores = jnp.where(memory.real[:, None], scores.astype(jnp.float32), -1e9)  # finite: a row may be all padding
        weights = jax.nn.softmax(scores).astype(self.dtype)
        context = jnp.einsum("bts,bsm->btm", weights, memory.values)
        joined = jnp.concatenate([context, h], axis=-1)
        return jnp.tanh(joined @ self.output_kernel.astype(self.dtype)), weights

    def _logits(self, h):
        kernel = self.target_embedding.T if self.tied else self.logits_kernel
        return product(h, kernel, self.logits_bias, self.dtype)

    def _dropper(self, train):
        """drop(place, t, i, x) at step t of a loop, for the i-th of a place; the key is drawn once, outside of it."""
        if not train or (isinstance(self.dropout, (int, float)) and self.dropout == 0):
            return lambda place, t, i, x: x
        key = self.make_rng("dropout")
        return lambda place, t, i, x: drop(fold(key, place, t, i), x, self.dropout)

    def _fed(self, memory, carry, x, train):
        """Teacher forcing step by step: x [B, T, E] -> outputs [B, T, H]."""
        dropper, weights = self._dropper(train), self.decoder.weights

        @jax.checkpoint  # the scores' tanh [B, S, H] is cheaper made again than kept for all steps
        def body(carry, inputs):
            t, x = inputs
            h, _, carry = self._step(weights, memory, carry, x, partial(dropper, "between", t))
            return carry, h

        _, h = lax.scan(body, carry, (jnp.arange(x.shape[1]), jnp.swapaxes(x, 0, 1)))
        return jnp.swapaxes(h, 0, 1)

    def _sampled(self, memory, carry, before, rate):
        """Scheduled sampling: before int32[B, T] -> logits [B, T, V]."""
        dropper, key, weights = self._dropper(True), self.make_rng("dropout"), self.decoder.weights

        @jax.checkpoint
        def body(loop, inputs):
            carry, guess = loop
            t, token = inputs
            own = jax.random.bernoulli(fold(key, "sampling", t), rate, token.shape) & (t > 0)
            x = embed(self.target_embedding, jnp.where(own, guess, token)).astype(self.dtype)
            x = dropper("embedding", t, 0, x)
            h, _, carry = self._step(weights, memory, carry, x, partial(dropper, "between", t))
            logits = self._logits(dropper("output", t, 0, h))
            return (carry, jnp.argmax(logits, axis=-1).astype(jnp.int32)), logits

        steps = (jnp.arange(before.shape[1]), jnp.swapaxes(before, 0, 1))
        _, logits = lax.scan(body, (carry, before[:, 0]), steps)
        return jnp.swapaxes(logits, 0, 1)


def additive_scores(queries, keys, score):
    """Bahdanau's scores of all pairs: queries [B, T, H], keys [B, S, H], score [H] -> [B, T, S].

    One query at a time, and its tanh [B, S, H] made again in the backward pass: that of all would be T times as large
    as the keys.
    """
    one = jax.checkpoint(lambda query: jnp.tanh(query[:, None] + keys) @ score)  # [B, H] -> [B, S]
    return jnp.swapaxes(lax.map(one, jnp.swapaxes(queries, 0, 1)), 0, 1)
