"""Generating tokens one by one, compiled with fixed shapes: greedy and beam search over any model's step function.

    decode(carry, token int32[R]) -> logits float[R, V], carry

where every array of `carry` has R rows; what the hypotheses of a beam share, as the source, `decode` knows by itself. A
row's result depends on that row alone, whatever stands beside it. `ids` has the token ids `pad`, `begin` and `end`, as
a tokenizer does.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


def log_probabilities(logits, ids):
    """Of the next token, in float32; padding and begin are never generated."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return log_probs.at[..., jnp.array([ids.pad, ids.begin])].set(-jnp.inf)


def greedy(decode, carry, rows, max_len, ids):
    """The most likely token at each step.

    Returns:
        tokens int32[rows, max_len], closed by an end where there was room for one, then padded; and the sum of their
        log-probabilities float32[rows].
    """

    def going_on(loop):
        t, _, _, _, done, _ = loop
        return (t < max_len) & ~done.all()

    def body(loop):
        t, tokens, sums, last, done, carry = loop
        logits, carry = decode(carry, last)
        log_probs = log_probabilities(logits, ids)
        token = jnp.where(done, ids.pad, jnp.argmax(log_probs, axis=-1).astype(jnp.int32))
        sums = jnp.where(done, sums, sums + jnp.max(log_probs, axis=-1))
        return t + 1, tokens.at[:, t].set(token), sums, token, done | (token == ids.end), carry

    tokens, begin = jnp.full((rows, max_len), ids.pad, jnp.int32), jnp.full(rows, ids.begin, jnp.int32)
    start = (0, tokens, jnp.zeros(rows), begin, jnp.zeros(rows, bool), carry)
    _, tokens, sums, *_ = lax.while_loop(going_on, body, start)
    return tokens, sums


class _Beams(NamedTuple):
    t: Any  # steps done
    live: Any  # int32[B, K, L], hypotheses that have not ended
    sums: Any  # float32[B, K], of their log-probabilities
    ended: Any  # int32[B, K, L]
    scores: Any  # float32[B, K], -inf where there are fewer
    done: Any  # bool[B]
    carry: Any  # of B * K rows


def beam_search(decode, carry, rows, max_len, ids, *, beam_size, length_penalty):
    """The best hypotheses found by a beam, with their scores.

    score = sum of log-probabilities / length ** length_penalty, the length counting the end. A candidate that ends
    among the best `beam_size` of its step is set aside. A row is done when it has `beam_size` of these and no live
    hypothesis, at its present length, has a better score than the worst of them. Whoever lives at max_len is counted
    as it stands. With a beam of 1 this is greedy search.

    Args:
        carry: of `rows` rows: each is copied for its beam.

    Returns:
        tokens int32[rows, beam_size, max_len], padded behind their end, best first; scores float32[rows, beam_size].
    """
    k = beam_size
    expand = lambda x: jnp.repeat(x, k, axis=0)
    pick_rows = jax.vmap(lambda x, i: x[i])  # [B, N, ...], [B, K] -> [B, K, ...]
    normalise = lambda sums, length: sums / jnp.asarray(length, jnp.float32) ** length_penalty

    def going_on(beams):
        return (beams.t < max_len) & ~beams.done.all()

    def body(beams):
        t, live, sums = beams.t, beams.live, beams.sums
        last = jnp.where(t == 0, ids.begin, live[:, :, t - 1])
        logits, carry = decode(beams.carry, last.reshape(-1))
        log_probs = log_probabilities(logits, ids).reshape(rows, k, -1)
        vocabulary = log_probs.shape[-1]
        best, place = lax.top_k((sums[..., None] + log_probs).reshape(rows, -1), 2 * k)  # [B, 2K], best first
        parent, token = place // vocabulary, (place % vocabulary).astype(jnp.int32)
        grown = pick_rows(live, parent).at[:, :, t].set(token)
        ends = token == ids.end
        # Set aside what ends among the first k.
        new = jnp.where(ends & (jnp.arange(2 * k) < k)[None], normalise(best, t + 1), -jnp.inf)
        scores, chosen = lax.top_k(jnp.concatenate([beams.scores, new], axis=1), k)
        ended = pick_rows(jnp.concatenate([beams.ended, grown], axis=1), chosen)
        scores = jnp.where(beams.done[:, None], beams.scores, scores)
        ended = jnp.where(beams.done[:, None, None], beams.ended, ended)
        # Go on with the first k that do not end: of 2k at most k do.
        sums, chosen = lax.top_k(jnp.where(ends, -jnp.inf, best), k)
        live, parent = pick_rows(grown, chosen), pick_rows(parent, chosen)
        flat = (parent + jnp.arange(rows)[:, None] * k).reshape(-1)
        carry = jax.tree.map(lambda x: x[flat], carry)
        done = beams.done | (scores[:, -1] >= normalise(sums[:, 0], t + 1))
        return _Beams(t + 1, live, sums, ended, scores, done, carry)

    tokens = jnp.full((rows, k, max_len), ids.pad, jnp.int32)
    first = jnp.where(jnp.arange(k) == 0, 0.0, -jnp.inf)  # all beams are the same as yet
    sums = jnp.broadcast_to(first[None], (rows, k))
    start = _Beams(
        0, tokens, sums, tokens, jnp.full((rows, k), -jnp.inf), jnp.zeros(rows, bool), jax.tree.map(expand, carry)
    )
    beams = lax.while_loop(going_on, body, start)
    unfinished = jnp.where(beams.done[:, None], -jnp.inf, normalise(beams.sums, max_len))
    scores, chosen = lax.top_k(jnp.concatenate([beams.scores, unfinished], axis=1), k)
    return pick_rows(jnp.concatenate([beams.ended, beams.live], axis=1), chosen), scores


def search(decode, carry, rows, max_len, ids, *, beam_size, length_penalty):
    """Greedy or by a beam, as `beam_size` says; both return as `beam_search` does."""
    if beam_size > 1:
        return beam_search(decode, carry, rows, max_len, ids, beam_size=beam_size, length_penalty=length_penalty)
    tokens, sums = greedy(decode, carry, rows, max_len, ids)
    lengths = (tokens != ids.pad).sum(axis=1)
    return tokens[:, None], (sums / lengths**length_penalty)[:, None]
