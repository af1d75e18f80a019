"""Generating tokens one by one, compiled with fixed shapes: sampling, greedy and beam search over any model's step.

    decode(carry, token int32[R]) -> logits float[R, V], carry

where every array of `carry` begins with R rows, or a multiple, a row's side by side; what the texts of a prompt or the
hypotheses of a beam share, as the source, `decode` knows by itself. A row's result depends on that row alone, whatever
stands beside it. `ids` has the token ids `pad`, `begin` and `end`, as a tokenizer does: -1, no token's, for one that
it lacks.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from research.randomness import draw


class Sampling(NamedTuple):
    """How the next token is drawn; applied in this order. By default as the model has it."""

    repetition_penalty: float = (
        1.0  # logits of tokens that stand in the text, its prompt too, are divided by it, if > 0
    )
    temperature: float = 1.0  # logits are divided by it; 0: the likeliest token
    top_k: int | None = None  # the so many likeliest, with all that equal the last of them
    top_p: float = 1.0  # the fewest likeliest that weigh so much together (Holtzman et al. 2020, arXiv:1904.09751)
    min_p: float = 0.0  # those at least so likely as this times the likeliest (Nguyen et al. 2024, arXiv:2407.01082)


PLAIN = Sampling()
GREEDY = Sampling(temperature=0.0)


def filtered(logits, seen, how):
    """Log-probabilities of the next token, float32[R, V], -inf for those that are not drawn.

    The penalty: Keskar et al. 2019 (arXiv:1909.05858), section 4.1, where a logit below 0 is multiplied.

    Args:
        logits: float[R, V].
        seen: bool[R, V], tokens that stand in the text; not read without a penalty.
        how: Sampling, of a temperature above 0.
    """
    scores = _penalised(logits.astype(jnp.float32), seen, how) / how.temperature
    kept = lambda scores, least: jnp.where(scores >= least, scores, -jnp.inf)
    if how.top_k is not None and how.top_k < scores.shape[-1]:
        scores = kept(scores, lax.top_k(scores, how.top_k)[0][:, -1:])
    if how.top_p < 1:
        scores = _nucleus(scores, how.top_p)
    if how.min_p > 0:
        scores = kept(scores, scores.max(axis=-1, keepdims=True) + jnp.log(how.min_p))
    return jax.nn.log_softmax(scores)


def _nucleus(scores, p):
    """The fewest likeliest tokens that weigh p together, of those that are equal the last by number."""
    ordered = -jnp.sort(-scores)
    weights = jax.nn.softmax(ordered)
    inside = jnp.cumsum(weights, axis=-1) - weights < p
    least = jnp.where(inside, ordered, jnp.inf).min(axis=-1, keepdims=True)
    equal = scores == least
    room = (inside & (ordered == least)).sum(axis=-1, keepdims=True)
    behind = jnp.cumsum(equal[:, ::-1], axis=-1)[:, ::-1]  # of the equal ones, this one and those after it
    return jnp.where((scores > least) | equal & (behind <= room), scores, -jnp.inf)


def _penalised(logits, seen, how):
    if how.repetition_penalty == 1:
        return logits
    penalty = how.repetition_penalty
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def possible(logits, ids):
    """The same in float32, but for padding and begin, which are never generated: -inf."""
    never = [i for i in (ids.pad, ids.begin) if i >= 0 and i != ids.end]
    return logits.astype(jnp.float32).at[..., jnp.array(never, jnp.int32)].set(-jnp.inf)


def log_probabilities(logits, ids):
    """Of the next token, in float32, as the model has them."""
    return possible(jax.nn.log_softmax(logits.astype(jnp.float32)), ids)


def lengths(tokens, ids):
    """int32[...]: how many tokens [..., T] are up to the first end, with it."""
    ends = tokens == ids.end
    return jnp.where(ends.any(axis=-1), jnp.argmax(ends, axis=-1) + 1, tokens.shape[-1])


def rows_of(carry, i, rows):
    """The rows i, int32[N], of a carry of so many rows, each with all that it has side by side."""
    pick = lambda x: x.reshape(rows, len(x) // rows, *x.shape[1:])[i].reshape(len(x) // rows * len(i), *x.shape[1:])
    return jax.tree.map(pick, carry)


class Texts(NamedTuple):
    """R texts as they are written."""

    last: Any  # int32[R], each one's last token, which the model has not read
    carry: Any
    done: Any  # bool[R]
    t: Any = 0  # int32[], tokens written
    keys: Any = None  # key[R], where tokens are drawn; what is drawn follows from it and t
    seen: Any = None  # bool[R, V], tokens that stand in each, where there is a penalty


def sample(decode, texts, steps, ids, how, *, stop=(), count=None):
    """Writes the next tokens of each text.

    Args:
        steps: room for so many.
        stop: a text is done when it has one of these ids.
        count: how many of the steps are taken, int32[]; all, if not given.

    Returns:
        tokens int32[R, steps], padded behind a stop; their log-probabilities as the model has them, unfiltered,
        float32[R, steps], 0 for padding; and the Texts.
    """
    rows = len(texts.last)
    stop = jnp.array(stop, jnp.int32).reshape(1, -1)
    count = steps if count is None else count

    def going_on(loop):
        i, _, _, texts = loop
        return (i < count) & ~texts.done.all()

    def body(loop):
        i, tokens, log_probs, texts = loop
        logits, carry = decode(texts.carry, texts.last)
        scores = possible(logits, ids)
        if how.temperature == 0:
            token = jnp.argmax(_penalised(scores, texts.seen, how), axis=-1)
        else:
            keys = jax.vmap(jax.random.fold_in, (0, None))(texts.keys, texts.t)
            token = jax.vmap(partial(draw, jax.random.categorical))(keys, filtered(scores, texts.seen, how))
        token = jnp.where(texts.done, ids.pad, token.astype(jnp.int32))
        chosen = jnp.take_along_axis(log_probabilities(logits, ids), token[:, None], axis=1)[:, 0]
        log_probs = log_probs.at[:, i].set(jnp.where(texts.done, 0, chosen))
        done = texts.done | (token[:, None] == stop).any(axis=1)
        seen = None if texts.seen is None else texts.seen.at[jnp.arange(rows), token].set(True)
        texts = Texts(token, carry, done, texts.t + 1, texts.keys, seen)
        return i + 1, tokens.at[:, i].set(token), log_probs, texts

    tokens = jnp.full((rows, steps), ids.pad, jnp.int32)
    _, tokens, log_probs, texts = lax.while_loop(going_on, body, (0, tokens, jnp.zeros((rows, steps)), texts))
    return tokens, log_probs, texts


def greedy(decode, carry, first, max_len, ids):
    """The most likely token at each step.

    Args:
        first: int32[R], what stands before: begin, or the last token of a prompt.

    Returns:
        tokens int32[R, max_len], closed by an end where there was room for one, then padded; and the sum of their
        log-probabilities float32[R].
    """
    texts = Texts(first, carry, jnp.zeros(len(first), bool))
    tokens, log_probs, _ = sample(decode, texts, max_len, ids, GREEDY, stop=(ids.end,))
    return tokens, log_probs.sum(axis=1)


class _Beams(NamedTuple):
    t: Any  # steps done
    live: Any  # int32[B, K, L], hypotheses that have not ended
    sums: Any  # float32[B, K], of their log-probabilities
    ended: Any  # int32[B, K, L]
    scores: Any  # float32[B, K], -inf where there are fewer
    done: Any  # bool[B]
    carry: Any  # of B * K rows


def beam_search(decode, carry, first, max_len, ids, *, beam_size, length_penalty):
    """The best hypotheses found by a beam, with their scores.

    score = sum of log-probabilities / length ** length_penalty, the length counting the end. A candidate that ends
    among the best `beam_size` of its step is set aside. A row is done when it has `beam_size` of these and no live
    hypothesis, at its present length, has a better score than the worst of them. Whoever lives at max_len is counted
    as it stands. With a beam of 1 this is greedy search.

    Args:
        carry: of R rows: each is copied for its beam.
        first: int32[R], what stands before: begin, or the last token of a prompt.

    Returns:
        tokens int32[R, beam_size, max_len], padded behind their end, best first; scores float32[R, beam_size].
    """
    rows, k = len(first), beam_size
    pick_rows = jax.vmap(lambda x, i: x[i])  # [B, N, ...], [B, K] -> [B, K, ...]
    normalise = lambda sums, length: sums / jnp.asarray(length, jnp.float32) ** length_penalty

    def going_on(beams):
        return (beams.t < max_len) & ~beams.done.all()

    def body(beams):
        t, live, sums = beams.t, beams.live, beams.sums
        last = jnp.where(t == 0, first[:, None], live[:, :, t - 1])
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
        carry = rows_of(carry, flat, rows * k)
        done = beams.done | (scores[:, -1] >= normalise(sums[:, 0], t + 1))
        return _Beams(t + 1, live, sums, ended, scores, done, carry)

    tokens = jnp.full((rows, k, max_len), ids.pad, jnp.int32)
    alike = jnp.where(jnp.arange(k) == 0, 0.0, -jnp.inf)  # all beams are the same as yet
    sums = jnp.broadcast_to(alike[None], (rows, k))
    carry = rows_of(carry, jnp.repeat(jnp.arange(rows), k), rows)
    start = _Beams(0, tokens, sums, tokens, jnp.full((rows, k), -jnp.inf), jnp.zeros(rows, bool), carry)
    beams = lax.while_loop(going_on, body, start)
    unfinished = jnp.where(beams.done[:, None], -jnp.inf, normalise(beams.sums, max_len))
    scores, chosen = lax.top_k(jnp.concatenate([beams.scores, unfinished], axis=1), k)
    return pick_rows(jnp.concatenate([beams.ended, beams.live], axis=1), chosen), scores


def search(decode, carry, first, max_len, ids, *, beam_size, length_penalty):
    """Greedy or by a beam, as `beam_size` says; both return as `beam_search` does."""
    if beam_size > 1:
        return beam_search(decode, carry, first, max_len, ids, beam_size=beam_size, length_penalty=length_penalty)
    tokens, sums = greedy(decode, carry, first, max_len, ids)
    return tokens[:, None], (sums / lengths(tokens, ids) ** length_penalty)[:, None]
