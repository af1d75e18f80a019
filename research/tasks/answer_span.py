"""The stretch of a text that answers a question: its first and its last token, and how right the words are."""

import collections
import re
import string

import jax
import jax.numpy as jnp
import numpy as np

from research.errors import UserError
from research.tasks.losses import check_shape, cross_entropy, masked
from research.tasks.task import Task, apply, check_head

WEIGHTS = {"start_loss": 0.5, "end_loss": 0.5}


def answer_span(spec, *, longest: int = 30):
    """Mean cross-entropy of an answer's first and last token among the tokens of a window. Devlin et al. 2019, section
    4.2; of several windows of one question the likeliest stretch of all is the answer.

    Batches hold what research.data.questions says. A window without the answer has its first token, [CLS], for both.
    Exact match and F1 of words are SQuAD's (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1), over a whole split.

    Args:
        longest: tokens of an answer.
    """
    if "answers" not in spec.features:
        has = ", ".join(spec.features)
        raise UserError(2, f"config.task.name: answer_span wants questions and their answers; {spec.name} has {has}")
    if longest < 1:
        raise UserError(2, f"config.task.longest: {longest}: at least 1")

    def inputs(spec, config):
        tokens = jax.ShapeDtypeStruct((1, *spec.features["tokens"][0]), jnp.int32)
        return dict.fromkeys(("tokens", "mask", "types"), tokens)

    def logits_of(model, variables, batch, **training):
        check_head(model, "span", "answer_span")
        seen = batch["tokens"] != spec.tokenizer.pad
        logits, model_state = apply(model, variables, batch["tokens"], seen, batch["types"], **training)
        check_shape(logits, (*seen.shape, 2), "answer_span")
        return logits[..., 0], logits[..., 1], seen, model_state

    def terms(start, end, seen, batch):
        found = span_losses(start, end, batch["first"], batch["last"], seen)
        return {name: masked(losses, counts * batch["mask"]) for name, (losses, counts) in zip(WEIGHTS, found)}

    def loss(model, variables, batch, keys, train):
        start, end, seen, model_state = logits_of(model, variables, batch, train=train, keys=keys)
        right = (_likeliest(start, seen) == batch["first"]) & (_likeliest(end, seen) == batch["last"])
        return terms(start, end, seen, batch), {"accuracy": masked(right, batch["mask"])}, model_state

    def evaluate(model, variables, batch, keys):
        start, end, seen, _ = logits_of(model, variables, batch)
        found = terms(start, end, seen, batch)
        total = tuple(sum(WEIGHTS[name] * pair[i] for name, pair in found.items()) for i in range(2))
        first, last, score = best_span(start, end, batch["spans"][..., 0] >= 0, longest)
        at = lambda places, side: jnp.take_along_axis(batch["spans"][..., side], places[:, None], axis=1)[:, 0]
        kept = {name: batch[name] for name in ("question", "text", "answers")}
        return {"loss": total, **found}, {**kept, "begin": at(first, 0), "stop": at(last, 1), "score": score}

    def predict(model, variables, batch):
        start, end, _, _ = logits_of(model, variables, batch)
        return {"spans": span_scores(start, end, batch["spans"][..., 0] >= 0, longest)}

    return Task(inputs, loss, evaluate, _score, predict, WEIGHTS)


HIDDEN = -1e30  # a logit that is none; finite, so that 0 times it is 0


def span_losses(start, end, first, last, seen):
    """Cross-entropies of the first and of the last token, in nats, and whether each counts: a place outside of the
    window does not.

    Args:
        start, end: float[B, T], logits.
        first, last: int32[B].
        seen: bool[B, T], which tokens are no padding.

    Returns:
        (losses float32[B], counts float32[B]) of the first token, and the same of the last.
    """

    def one(logits, place):
        inside = (place >= 0) & (place < logits.shape[1])
        told = jnp.where(seen, logits.astype(jnp.float32), HIDDEN)
        return cross_entropy(told, jnp.where(inside, place, 0)), inside.astype(jnp.float32)

    return one(start, first), one(end, last)


def _likeliest(logits, seen):
    return jnp.argmax(jnp.where(seen, logits, HIDDEN), axis=-1)


def span_scores(start, end, inside, longest):
    """float32[B, T, longest]: the sum of the two logits of each stretch, by its first token and how many follow; -inf
    of one that is not all inside.

    Args:
        start, end: float[B, T].
        inside: bool[B, T], which tokens are the text's: one stretch of them.
    """
    T = start.shape[1]
    behind = jnp.arange(T)[:, None] + jnp.arange(min(longest, T))[None]  # [T, L], the last token
    told = (behind < T)[None] & inside[:, jnp.minimum(behind, T - 1)] & inside[:, :, None]
    ends = end.astype(jnp.float32)[:, jnp.minimum(behind, T - 1)]
    return jnp.where(told, start.astype(jnp.float32)[:, :, None] + ends, -jnp.inf)


def best_span(start, end, inside, longest):
    """The likeliest stretch of each row: its first token, its last token, int32[B], and its score, see span_scores."""
    scores = span_scores(start, end, inside, longest)
    flat = scores.reshape(len(scores), -1)
    best = jnp.argmax(flat, axis=-1)
    first, more = best // scores.shape[-1], best % scores.shape[-1]
    return first, first + more, flat.max(axis=-1)


def _score(arrays):
    """Exact match and F1 over all questions, each answered by the window that is surest of its stretch."""
    best = {}
    for i, (question, score) in enumerate(zip(arrays["question"].tolist(), arrays["score"].tolist())):
        if question not in best or score > best[question][0]:
            best[question] = score, i
    found = []
    for _, i in best.values():
        text = bytes(arrays["text"][i][arrays["begin"][i] : arrays["stop"][i]]).decode(errors="replace").strip()
        answers = bytes(arrays["answers"][i]).rstrip(b"\0").decode(errors="replace").split("\0")
        found.append(answer_scores(text, answers))
    exact, f1 = np.mean(found or [(0.0, 0.0)], axis=0).tolist()
    return {"exact_match": exact, "f1": f1}


def answer_scores(text, answers):
    """Whether a text is one of the answers, and the best F1 of its words with one of theirs; as SQuAD's script of
    version 1.1 has it: without case, punctuation and articles.
    """
    return max(float(_words(text) == _words(answer)) for answer in answers), max(_f1(text, a) for a in answers)


def _words(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _f1(text, answer):
    found, true = _words(text), _words(answer)
    right = (collections.Counter(found) & collections.Counter(true)).total()
    return 2 * right / (len(found) + len(true)) if right else 0.0
