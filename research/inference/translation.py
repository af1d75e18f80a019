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


def encode(run, texts, names):
    """The ids of each text, by the run's tokenizer, without marks around it.

    Args:
        names: what an error calls each of them.

    Raises:
        UserError: 2 for one that is empty, or has no token that is known.
    """
    ids, encoded = run.tokenizer, run.tokenizer.encode(texts)
    for name, text, found in zip(names, texts, encoded):
        if not found or not text.strip():  # blanks are tokens to some tokenizers
            raise UserError(2, f"{name}: {text!r} is empty")
        if all(token == ids.unknown for token in found):
            raise UserError(2, f"{name}: {text!r}: no token of it is in the run's vocabulary of {ids.size}")
    return encoded


def padded(run, rows, field, names, marks=0):
    """Returns ids as the run's data have them in a field, int32[n, T], T a multiple of 32 or the run's max_len.

    Args:
        marks: how many of each row close it.

    Raises:
        UserError: 2 for a row that is longer than the run's max_len.
    """
    longest = run.spec.features[field][0][0]
    wanted = -(-max(map(len, rows), default=1) // 32) * 32  # few shapes, so that few programs are compiled
    found = np.full((len(rows), min(wanted, longest)), run.tokenizer.pad, np.int32)
    for place, name, row in zip(found, names, rows):
        if len(row) > longest:
            closed = " and an end" * (marks > 0)
            raise UserError(2, f"{name}: {len(row) - marks} tokens{closed}; the run reads at most {longest}")
        place[: len(row)] = row
    return found


def _sources(run, texts, names):
    """Texts as sources, each closed by an end."""
    return padded(run, [[*row, run.tokenizer.end] for row in encode(run, texts, names)], "source", names, 1)


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
    return _translate(run, task, _sources(run, texts, names))


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
    (source,) = _sources(run, [text], ["--text"])
    source = source[None, : (source != ids.pad).sum()]
    memory, carry = run.model.apply(run.variables, source, source != ids.pad, method="encode")

    def step(carry, token):
        _, weights, carry = run.model.apply(run.variables, memory, carry, token, method="decode")
        return carry, weights[0]

    before = jnp.concatenate([jnp.array([ids.begin]), tokens[:-1]]).astype(jnp.int32)
    _, weights = lax.scan(step, carry, before[:, None])
    shown = lambda row: ["<end>" if t == ids.end else ids.decode([t]).strip() or "<unknown>" for t in np.asarray(row)]
    return np.asarray(weights), shown(source[0]), shown(tokens)
