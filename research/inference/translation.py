"""From text to what a run's model makes of it: the best hypotheses, their scores, and what was attended to."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research import config as configs
from research.errors import UserError
from research.generation import lengths
from research.tasks import TASKS

BATCH = 32  # texts translated at a time


class Hypothesis(NamedTuple):
    text: str
    score: float  # log-probability over length ** length_penalty
    tokens: np.ndarray  # int32[T], the end with it


def encode(run, texts, field, names):
    """Texts as rows of tokens, as the run's data have them: int32[n, max_len].

    Args:
        field: the run's field that they are read as, source or tokens.
        names: what an error calls each of them.

    Raises:
        UserError: 2 for one that is empty, has no word that is known, or is longer than the run's max_len.
    """
    longest, ids = run.spec.features[field][0][0], run.tokenizer
    before, behind = ids.frame if field == "tokens" else ([], [ids.end])
    closed, rows = " and an end" * len(behind), np.full((len(texts), longest), ids.pad, np.int32)
    for row, name, text, found in zip(rows, names, texts, ids.encode(texts)):
        if not found or not text.strip():  # blanks are tokens to some tokenizers
            raise UserError(2, f"{name}: {text!r} is empty")
        if all(token == ids.unknown for token in found):
            raise UserError(2, f"{name}: {text!r}: no token of it is in the run's vocabulary of {ids.size}")
        found = [*before, *found, *behind]
        if len(found) > longest:
            raise UserError(2, f"{name}: {len(found) - len(behind)} tokens{closed}; the run reads at most {longest}")
        row[: len(found)] = found
    return rows


def translate(run, texts, names, *, beam_size=None, length_penalty=None):
    """For each text its hypotheses, best first: an iterator of [Hypothesis].

    Args:
        beam_size, length_penalty: the run's own, if not given.

    Raises:
        UserError: 2, at once, for a run of another task, a text or a beam that cannot be.
    """
    if run.config.task.name != "translate":
        raise UserError(2, f"{run.folder}: its task is {run.config.task.name}, not translate")
    given = {"beam_size": beam_size, "length_penalty": length_penalty}
    own = configs.arguments("task", run.config) | {name: x for name, x in given.items() if x is not None}
    if not 1 <= own["beam_size"] <= run.tokenizer.size:
        raise UserError(
            2, f"--beam_size: {own['beam_size']}; it must be from 1 to the vocabulary's {run.tokenizer.size} tokens"
        )
    task = TASKS["translate"](run.spec, **own)
    return _translate(run, task, encode(run, texts, "source", names))


def _translate(run, task, rows):
    predict = jax.jit(lambda variables, source: task.predict(run.model, variables, {"source": source}))
    size = min(BATCH, len(rows))
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        padded = np.concatenate([chunk, chunk[-1:].repeat(size - len(chunk), axis=0)])  # one shape, one program
        found = jax.device_get(predict(run.variables, jax.device_put(padded)))
        for tokens, scores in zip(found["tokens"][: len(chunk)], found["scores"]):
            kept = zip(tokens, scores, np.asarray(lengths(tokens, run.tokenizer)))
            yield [Hypothesis(run.tokenizer.decode(t), float(s), t[:n]) for t, s, n in kept if np.isfinite(s)]


def attention(run, text, tokens):
    """Where the model looks as it writes these tokens: weights float[T, S], and the tokens of both sides as text."""
    if run.config.model.get("attention", "none") == "none":
        raise UserError(2, f"{run.folder}: its model has no attention to be shown")
    ids = run.tokenizer
    (source,) = encode(run, [text], "source", ["--text"])
    source = source[None, : (source != ids.pad).sum()]
    memory, carry = run.model.apply(run.variables, source, source != ids.pad, method="encode")

    def step(carry, token):
        _, weights, carry = run.model.apply(run.variables, memory, carry, token, method="decode")
        return carry, weights[0]

    before = jnp.concatenate([jnp.array([ids.begin]), tokens[:-1]]).astype(jnp.int32)
    _, weights = lax.scan(step, carry, before[:, None])
    shown = lambda row: ["<end>" if t == ids.end else ids.decode([t]).strip() or "<unknown>" for t in np.asarray(row)]
    return np.asarray(weights), shown(source[0]), shown(tokens)
