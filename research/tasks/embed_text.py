"""One vector a text, near those of texts that belong with it."""

import jax
import jax.numpy as jnp

from research.errors import UserError
from research.tasks.losses import check_shape, cross_entropy, is_in_top, masked
from research.tasks.task import Task, apply, check_head


def embed_text(spec, *, temperature: float = 0.05):
    """Cross-entropy of which of two texts goes on from a third, by the cosines of their vectors over `temperature`.

    A vector is the mean of what an encoder makes of a text's tokens; the texts are sentences of one document and one of
    another, as Reimers and Gurevych 2019 (arXiv:1908.10084), sections 3 and 4.4, have them of Wikipedia, and accuracy
    is theirs: how often the right one is the nearer. The loss is that of Gao et al. 2021 (arXiv:2104.08821), equation
    5, with the negative of the row alone, so that a batch may be cut as one likes.

    Batches hold pairs as research.data.sentences makes them, and mask float32[B].
    """
    ids = spec.tokenizer
    if ids is None or "other_tokens" not in spec.features:
        has = ", ".join(spec.features)
        raise UserError(
            2, f"config.task.name: embed_text wants pairs of sentences; {spec.name} has {has}; "
            "config.data.name=sentences makes them of documents",
        )  # fmt: skip
    if not temperature > 0:
        raise UserError(2, f"config.task.temperature: {temperature}: more than 0")

    def inputs(spec, config):
        tokens = jax.ShapeDtypeStruct((1, *spec.features["tokens"][0]), jnp.int32)
        return {"tokens": tokens, "mask": tokens}

    def cosines(model, variables, batch, **training):
        """float32[B, 2]: of the first part with the one behind it, and with the other one."""
        check_head(model, "none", "embed_text")
        first, right = parts(batch["tokens"], batch["types"], ids)
        _, wrong = parts(batch["other_tokens"], batch["other_types"], ids)
        tokens = jnp.concatenate([first, right, wrong])
        vectors, model_state = embedded(model, variables, tokens, ids.pad, **training)
        first, right, wrong = jnp.split(vectors, 3)
        return jnp.stack([(first * right).sum(axis=1), (first * wrong).sum(axis=1)], axis=1), model_state

    def sums(found, batch):
        true = jnp.zeros(len(found), jnp.int32)
        losses, right = cross_entropy(found / temperature, true), is_in_top(-found, 1 - true, 1)
        return {"loss": masked(losses, batch["mask"]), "accuracy": masked(right, batch["mask"])}

    def loss(model, variables, batch, keys, train):
        found, model_state = cosines(model, variables, batch, train=train, keys=keys)
        metrics = sums(found, batch)
        return {"loss": metrics.pop("loss")}, metrics, model_state

    def evaluate(model, variables, batch, keys):
        return sums(cosines(model, variables, batch)[0], batch), {}

    def predict(model, variables, batch):
        return {"vectors": embedded(model, variables, batch["tokens"], ids.pad)[0]}

    return Task(inputs, loss, evaluate, lambda arrays: {}, predict)


def embedded(model, variables, tokens, pad, **training):
    """The mean of a text's states over its tokens, of length 1, float32[B, D], and the model's collections.

    Args:
        model: with the head none.
        tokens: int32[B, T], padded.
    """
    seen = tokens != pad
    states, model_state = apply(model, variables, tokens, seen, **training)
    check_shape(states, (*tokens.shape, states.shape[-1]), "embed_text")
    weights = seen.astype(jnp.float32)[..., None]
    # where, not a product: what stands at padding may be anything.
    total = jnp.where(weights > 0, states.astype(jnp.float32), 0.0).sum(axis=1)
    mean = total / jnp.maximum(weights.sum(axis=1), 1)
    return mean * jax.lax.rsqrt(jnp.maximum((mean * mean).sum(axis=1, keepdims=True), 1e-12)), model_state


def parts(tokens, types, ids):
    """Each part of pairs as a text of its own, from begin to end: int32[B, T] twice.

    Args:
        tokens, types: int32[B, T], pairs as Tokenizer.join makes them.
        ids: of the tokenizer.
    """
    place = jnp.arange(tokens.shape[1])[None]
    behind = ((types == 0) & (tokens != ids.pad)).sum(axis=1, keepdims=True)  # where the second part begins
    first = jnp.where(place < behind, tokens, ids.pad)
    size = ((types == 1) & (tokens != ids.pad)).sum(axis=1, keepdims=True)
    moved = jnp.take_along_axis(tokens, jnp.minimum(place + behind - 1, tokens.shape[1] - 1), axis=1)
    second = jnp.where(place == 0, ids.begin, jnp.where(place <= size, moved, ids.pad))
    return first, second
