"""A tag for each word of a sentence, and the phrases that tags make: entities, chunks."""

import jax
import jax.numpy as jnp
import numpy as np

from research.data.dataset import UNTAGGED
from research.errors import UserError
from research.tasks.losses import check_shape, cross_entropy, is_in_top, masked
from research.tasks.task import Task, apply, check_head

GOES_ON = {("B", "I"), ("B", "E"), ("I", "I"), ("I", "E")}  # of one type, all else begins anew


def tag_tokens(spec):
    """Softmax cross-entropy of the tags of words, told at their first tokens. Devlin et al. 2019, section 5.3.

    Batches hold tokens int32[B, T], padded, tags int32[B, T], of which those below 0 are none, and mask float32[B].
    Precision, recall and F1 are of phrases, as conlleval counts them, over a whole split.
    """
    if "tags" not in spec.features:
        raise UserError(
            2, f"config.task.name: tag_tokens wants tagged words; {spec.name} has {', '.join(spec.features)}"
        )
    labels = parsed(spec.labels)
    longest = spec.features["tokens"][0][0]

    def inputs(spec, config):
        tokens = jax.ShapeDtypeStruct((1, longest), jnp.int32)
        return {"tokens": tokens, "mask": tokens}

    def logits_of(model, variables, batch, **training):
        check_head(model, "tags", "tag_tokens")
        tokens = batch["tokens"]
        logits, model_state = apply(model, variables, tokens, tokens != spec.tokenizer.pad, **training)
        check_shape(logits, (*tokens.shape, spec.classes), "tag_tokens")
        return logits, model_state

    def sums(logits, batch):
        told = (batch["tags"] >= 0) & (batch["tokens"] != spec.tokenizer.pad)
        told = told * batch["mask"][:, None]
        tags = jnp.maximum(batch["tags"], 0)
        return {"loss": masked(cross_entropy(logits, tags), told), "accuracy": masked(is_in_top(logits, tags, 1), told)}

    def loss(model, variables, batch, keys, train):
        logits, model_state = logits_of(model, variables, batch, train=train, keys=keys)
        found = sums(logits, batch)
        return {"loss": found["loss"]}, {"accuracy": found["accuracy"]}, model_state

    def evaluate(model, variables, batch, keys):
        logits, _ = logits_of(model, variables, batch)
        # As wide in every bucket, so that the host can join them.
        wide = lambda x: jnp.pad(x, ((0, 0), (0, longest - x.shape[1])), constant_values=UNTAGGED)
        tags = jnp.where(batch["tokens"] == spec.tokenizer.pad, UNTAGGED, batch["tags"])
        return sums(logits, batch), {"tags": wide(tags), "found": wide(jnp.argmax(logits, -1).astype(jnp.int32))}

    def score(arrays):
        named = lambda row, which: [labels[i] for i in row[which]]
        rows = [(row >= 0, row, found) for row, found in zip(arrays["tags"], arrays["found"])]
        return phrase_scores([(named(row, told), named(found, told)) for told, row, found in rows])

    def predict(model, variables, batch):
        logits, _ = logits_of(model, variables, batch)
        return {"probabilities": jax.nn.softmax(logits.astype(jnp.float32))}

    return Task(inputs, loss, evaluate, score, predict)


def parsed(labels):
    """[(place, type)] of the names of tags: O, or B-type and I-type, and where they are E-type and S-type.

    Raises:
        UserError: 2, for another name.
    """
    found = []
    for label in labels:
        place, _, kind = label.partition("-")
        if label != "O" and (place not in tuple("BIES") or not kind):
            raise UserError(2, f"config.task.name: tag_tokens wants tags named O, B-type and I-type; one is {label!r}")
        found.append((place, kind))
    return found


def phrases(tags):
    """{(first, behind its last, type)} of a sentence's tags, as conlleval tells them: a phrase begins with B or S, and
    with whatever does not go on with the one before it, being of another type or behind an end.

    Tjong Kim Sang and Buchholz 2000 (CoNLL-2000's shared task).

    Args:
        tags: [(place, type)].
    """
    found, start = set(), 0
    for i, (place, kind) in enumerate(tags):
        before = tags[i - 1] if i else ("O", "")
        if (before[0], place) not in GOES_ON or before[1] != kind:
            if before[0] != "O":
                found.add((start, i, before[1]))
            start = i
    if tags and tags[-1][0] != "O":
        found.add((start, len(tags), tags[-1][1]))
    return found


def phrase_scores(sentences):
    """Precision, recall and F1 of the phrases found, each 0 where there is nothing to divide by.

    Args:
        sentences: [(tags, tags found)], each [(place, type)].
    """
    true, found, right = np.sum([_counts(*sentence) for sentence in sentences] or [(0, 0, 0)], axis=0).tolist()
    share = lambda part, whole: part / whole if whole else 0.0
    return {"precision": share(right, found), "recall": share(right, true), "f1": share(2 * right, true + found)}


def _counts(true, found):
    true, found = phrases(true), phrases(found)
    return len(true), len(found), len(true & found)
