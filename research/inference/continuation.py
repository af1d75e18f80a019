"""Text that goes on from a prompt, written by a run's language model: drawn, as it comes, or the best of a beam."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.errors import UserError
from research.generation import PLAIN, Texts, beam_search, rows_of, sample
from research.optimizers import unstacked
from research.randomness import fold_each, run_key

PIECE = 8  # tokens written between two looks at them
STAGES = 4  # a cache grows to the model's context by as many steps, one compiled program each
STRIDE = 64  # the same for a model that has no context


class Piece(NamedTuple):
    prompt: int  # its number
    sample: int
    text: str  # what it goes on with
    ended: bool  # by this piece, which may be empty


def ready(run):
    """A run's model and variables as `write` and `search` take them.

    Raises:
        UserError: 2, for a run that is no language model, or one whose model cannot go on from a text.
    """
    if run.config.task.name != "next_token":
        raise UserError(2, f"{run.folder}: its task is {run.config.task.name}, not next_token")
    if not hasattr(run.model, "encode"):
        raise UserError(
            2, f"{run.folder}: config.model.name {run.config.model.name} has no methods encode and decode to write with"
        )
    if not getattr(run.model, "scan", False):
        return run.model, run.variables
    return run.model.clone(scan=False), {**run.variables, "params": unstacked(run.variables["params"])}


def encode(run, prompts, names, *, cut=False):
    """Prompts as ids.

    Args:
        names: what an error calls each of them.
        cut: of one longer than the model's context, the end of that length is read.

    Raises:
        UserError: 2 for one that is empty, has no token that is known, or is longer than the context.
    """
    newline, context, ids = run.config.data.get("newline", "\n"), getattr(run.model, "context", None), run.tokenizer
    rows = []
    for prompt, name, row in zip(prompts, names, ids.encode([prompt.replace("\n", newline) for prompt in prompts])):
        if not row:
            raise UserError(2, f"{name}: {prompt!r} is empty; a text begins with some token, as that of a new line")
        if all(token == ids.unknown for token in row):
            raise UserError(2, f"{name}: {prompt!r}: no token of it is in the run's vocabulary of {ids.size}")
        if context is not None and len(row) > context:
            if not cut:
                raise UserError(
                    2, f"{name}: {len(row)} tokens; the model reads {context}; --long_prompt=cut keeps the last of them"
                )
            row = row[-context:]
        rows.append(row)
    return rows


def write(model, variables, prompts, steps, ids, *, how=PLAIN, samples=1, seed=0, stop=()):
    """Texts that go on from each prompt, as they come.

    A text follows from seed, prompt and its number among the samples, whatever is written beside it. One that fills the
    model's context has the latter half of that read again, as a prompt, and goes on.

    Args:
        prompts: lists of ids, at least one each, and at most the model's context.
        steps: tokens to write.
        stop: ids that end a text.

    Yields:
        int32[R, n], the next tokens of R texts, those of a prompt side by side; `ids.pad` behind a stop.
    """
    context, R = getattr(model, "context", None), len(prompts) * samples
    stride = _stride(model)
    rows = [list(prompt) for prompt in prompts for _ in range(samples)]
    texts = Texts(None, None, jnp.zeros(R, bool), jnp.zeros((), jnp.int32))
    if how.temperature > 0:
        purposes = [f"text {list(map(int, prompt))}" for prompt in prompts]
        keys = [fold_each(run_key(seed), purpose, jnp.arange(samples)) for purpose in purposes]
        texts = texts._replace(keys=jnp.concatenate(keys))
    if how.repetition_penalty != 1:
        seen = np.zeros((R, ids.size + getattr(model, "unused_rows", 0)), bool)
        for row, tokens in zip(seen, rows):
            row[tokens] = True
        texts = texts._replace(seen=jnp.asarray(seen))
    each, t, done = samples, 0, False
    while t < steps and not done:
        if context is not None:
            rows = [row[-max(context // 2, 1) :] if len(row) > context else row for row in rows]
        longest = max(map(len, rows))
        tokens, mask = _padded([row[:-1] for row in rows[::each]], _rounded(longest - 1, stride))
        memory, carry = _read(model, variables, tokens, mask, each)
        texts = texts._replace(carry=carry, last=jnp.asarray([row[-1] for row in rows], jnp.int32))
        left, taken = steps if context is None else context - longest + 1, 0
        room, held = (tokens.shape[1], longest - 1) if each == 1 else (0, 0)  # columns of the cache; those in use
        each = 1
        while t < steps and taken < left and not done:
            count = min(PIECE, steps - t, left - taken)
            if context is not None and held + taken + count > room:
                room = _rounded(held + taken + count, stride)
                texts = texts._replace(carry=_widen(model, texts.carry, room))
            new, texts = _write(model, variables, memory, texts, count, ids, how, tuple(stop))
            done, new = bool(texts.done.all()), np.asarray(new)[:, :count]
            rows = [row + list(found) for row, found in zip(rows, new)]
            t, taken = t + count, taken + count
            yield new


def _stride(model):
    """Tokens by which a cache grows, one compiled program each time."""
    context = getattr(model, "context", None)
    return STRIDE if context is None else -(-context // STAGES)


def _rounded(n, stride):
    """n as a multiple of the stride, at least once."""
    return max(-(-n // stride), 1) * stride


def _padded(rows, width):
    """Rows of ids to the right of padding, int32[B, width], and their mask."""
    tokens, mask = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), np.int32)
    for i, row in enumerate(rows):
        tokens[i, width - len(row) :], mask[i, width - len(row) :] = row, 1
    return jnp.asarray(tokens), jnp.asarray(mask)


@partial(jax.jit, static_argnames=("model", "samples"))
def _read(model, variables, tokens, mask, samples):
    memory, carry = model.apply(variables, tokens, mask, samples > 1, method="encode")
    return memory, rows_of(carry, jnp.repeat(jnp.arange(len(tokens)), samples), len(tokens))


@partial(jax.jit, static_argnames=("model", "room"))
def _widen(model, carry, room):
    return model.widen(carry, room)


@partial(jax.jit, static_argnames=("model", "ids", "how", "stop"), donate_argnames="texts")
def _write(model, variables, memory, texts, count, ids, how, stop):
    tokens, _, texts = sample(_decoder(model, variables, memory), texts, PIECE, ids, how, stop=stop, count=count)
    return tokens, texts


def _decoder(model, variables, memory):
    return lambda carry, token: model.apply(variables, memory, carry, token, method="decode")


def stream(run, prompts, *, steps, how=PLAIN, samples=1, seed=0, stop=()):
    """The texts that go on from each prompt, in their order: the foremost that has not ended, as it comes.

    A text ends by the tokenizer's end, before one of the texts `stop`, or after so many steps.

    Args:
        prompts: lists of ids, as `encode` gives them.

    Yields:
        Piece.
    """
    model, variables = ready(run)
    texts = [_Text(run.tokenizer, prompt, stop) for prompt in prompts for _ in range(samples)]
    own = {"how": how, "samples": samples, "seed": seed, "stop": (run.tokenizer.end,)}
    front = 0
    for new in write(model, variables, prompts, steps, run.tokenizer, **own):
        for text, tokens in zip(texts, new):
            text.add(tokens)
        while front < len(texts) and (texts[front].ended or texts[front].held):
            yield Piece(*divmod(front, samples), texts[front].taken(), texts[front].ended)
            if not texts[front].ended:
                break
            front += 1
        if front == len(texts):
            return
    for i in range(front, len(texts)):
        yield Piece(*divmod(i, samples), texts[i].taken(last=True), True)


class _Text:
    """A text as it is written; what may yet become one of the texts that stop it is held back."""

    def __init__(self, tokenizer, prompt, stop):
        self.decode, self.end = tokenizer.stream(prompt), tokenizer.end
        self.stop, self.held, self.ended = [s for s in stop if s], "", False

    def add(self, tokens):
        if not self.ended:
            ends = np.flatnonzero(tokens == self.end)
            self.held += self.decode(tokens[: ends[0]] if len(ends) else tokens)
            places = [place for place in (self.held.find(text) for text in self.stop) if place >= 0]
            self.held = self.held[: min(places)] if places else self.held
            self.ended = bool(len(ends) or places)
        return self

    def taken(self, last=False):
        """What there is since the last time, all of it where nothing comes after."""
        back = 0 if last or self.ended else max(map(len, self.stop), default=1) - 1
        n = max(len(self.held) - back, 0)
        text, self.held = self.held[:n], self.held[n:]
        return text


def search(run, prompts, *, steps, beam_size, length_penalty=1.0, samples=1):
    """The best texts of a beam for each prompt; see research.generation.beam_search.

    Args:
        prompts: as for `stream`; with `steps` tokens more they must fit into the model's context.
        samples: how many of the beam, best first.

    Returns:
        an iterator of Piece, a text each.

    Raises:
        UserError: 2, at once.
    """
    (model, variables), ids = ready(run), run.tokenizer
    longest, context = max(map(len, prompts)), getattr(model, "context", None)
    if context is not None and longest + steps - 1 > context:
        raise UserError(
            2, f"--tokens: {steps} behind a prompt of {longest}; a beam has room for {context - longest + 1}, since "
            f"the model's context is {context}"
        )  # fmt: skip
    if not samples <= beam_size <= ids.size:
        raise UserError(
            2, f"--beam_size: {beam_size}; it must be from --num_samples, {samples}, to the vocabulary's {ids.size}"
        )
    tokens, mask = _padded([prompt[:-1] for prompt in prompts], _rounded(longest - 1, _stride(model)))
    last = jnp.asarray([prompt[-1] for prompt in prompts], jnp.int32)
    found, _ = jax.device_get(_search(model, variables, tokens, mask, last, steps, ids, beam_size, length_penalty))
    whole = lambda prompt, tokens: _Text(ids, prompt, ()).add(tokens).taken(last=True)
    pairs = [(i, j, tokens) for i, beams in enumerate(found) for j, tokens in enumerate(beams[:samples])]
    return (Piece(i, j, whole(prompts[i], tokens), True) for i, j, tokens in pairs)


@partial(jax.jit, static_argnames=("model", "steps", "ids", "beam_size", "length_penalty"))
def _search(model, variables, tokens, mask, last, steps, ids, beam_size, length_penalty):
    memory, carry = model.apply(variables, tokens, mask, True, method="encode")
    carry = model.widen(carry, steps) if hasattr(model, "widen") else carry
    own = {"beam_size": beam_size, "length_penalty": length_penalty}
    return beam_search(_decoder(model, variables, memory), carry, last, steps, ids, **own)
