"""Tokens that are masked, told by those around them, and whether one stretch of a text follows another: BERT's."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from research.errors import UserError
from research.models.layers import product
from research.randomness import draw, fold
from research.tasks.losses import cross_entropy, is_in_top, masked, token_sums
from research.tasks.task import Task, apply, read_weights

MASKED, RANDOM = 0.8, 0.1  # of the tokens that are to be told: become [MASK], and another; the others stay


def masked_lm(spec, *, rate: float = 0.15, whole_words: bool = False, weights: tuple[str, ...] = ()):
    """Cross-entropies of masked tokens and, where the model's head is `pretraining`, of whether the second part of a
    pair follows the first. Devlin et al. 2019, section 3.1 and appendix A.1; masks drawn anew each time, as Liu et al.
    2019 (arXiv:1907.11692), section 4.1.

    Batches hold tokens, types, other_tokens and other_types int32[B, T], a pair and the same with a second part that
    does not follow, and mask float32[B]. For `pretraining` one of the two is drawn for each row, by half; else the
    first one is read. A model is asked for the tokens at a fixed number of places a row, so that no others are scored.

    Args:
        rate: share of a row's tokens to be told; special ones never are.
        whole_words: all pieces of a word or none, where a tokenizer marks the pieces by ##, as WordPiece does.
        weights: of the terms, as next_loss=0.5; 1 where not named.
    """
    ids, tables = spec.tokenizer, _tables(spec, whole_words)

    def inputs(spec, config):
        tokens = jax.ShapeDtypeStruct((1, *spec.features["tokens"][0]), jnp.int32)
        return dict.fromkeys(("tokens", "mask", "types"), tokens)

    def both(model, variables, batch, keys, **training):
        """Sums of losses and of metrics, and the model's state."""
        head = getattr(model, "head", None)
        if head not in ("masked", "pretraining"):
            raise UserError(2, f"config.model.head: {head}; config.task.name masked_lm wants masked or pretraining")
        tokens, types, other = batch["tokens"], batch["types"], jnp.zeros(len(batch["tokens"]), jnp.int32)
        if head == "pretraining":
            other = jax.vmap(lambda key: jax.random.bernoulli(fold(key, "next")))(keys["augment"]).astype(jnp.int32)
            chosen = other[:, None] > 0
            tokens = jnp.where(chosen, batch["other_tokens"], tokens)
            types = jnp.where(chosen, batch["other_types"], types)
        read, places, targets, told = jax.vmap(lambda key, row: mask_tokens(key, row, rate, *tables))(
            keys["augment"], tokens
        )
        found, model_state = apply(
            model, variables, read, tokens != ids.pad, types, places=places, method="read", keys=keys, **training
        )
        told = told * batch["mask"][:, None]
        loss, right = token_sums(*found["masked"], targets, told, model.dtype)
        losses = {"masked_loss": (loss, told.sum())}
        metrics = {"perplexity": losses["masked_loss"], "masked_accuracy": (right, told.sum())}
        if head == "pretraining":
            logits = product(*found["next"], model.dtype)
            losses["next_loss"] = masked(cross_entropy(logits, other), batch["mask"])
            metrics["next_accuracy"] = masked(is_in_top(logits, other, 1), batch["mask"])
        return losses, metrics, model_state

    def loss(model, variables, batch, keys, train):
        return both(model, variables, batch, keys, train=train)

    def evaluate(model, variables, batch, keys):
        losses, metrics, _ = both(model, variables, batch, keys)
        return losses | metrics, {}

    def predict(model, variables, batch):
        tokens = batch["tokens"]
        logits = model.apply(variables, tokens, tokens != ids.pad, places=jnp.argmax(tokens == ids.mask, 1)[:, None])
        logits = logits["masked"] if isinstance(logits, dict) else logits
        return {"probabilities": jax.nn.softmax(logits[:, 0])}  # of the first mask of each row

    return Task(inputs, loss, evaluate, lambda arrays: {}, predict, read_weights(weights))


def _tables(spec, whole_words):
    """What `mask_tokens` reads of a data set's tokenizer: its mask, others, ordinary and goes_on.

    Raises:
        UserError: 2, for data that are no pairs, or a tokenizer without a mask.
    """
    ids = spec.tokenizer
    if ids is None or "other_tokens" not in spec.features:
        raise UserError(
            2,
            f"config.task.name: masked_lm wants pairs of sentences; {spec.name} has {', '.join(spec.features)}; "
            "config.data.name=sentences makes them of documents",
        )
    if ids.mask < 0:
        raise UserError(2, "config.data.tokenizer: it has no token for a mask: neither [MASK] nor <mask>; bert has one")
    ordinary = np.ones(ids.size, bool)
    ordinary[[i for i in ids.special.values() if i >= 0]] = False
    goes_on = np.array([token.startswith("##") for token in ids.vocabulary]) & whole_words
    return ids.mask, np.flatnonzero(ordinary), ordinary, goes_on


def mask_tokens(key, tokens, rate, mask, others, ordinary, goes_on):
    """A row with some of its tokens masked, and what is to be told of it.

    Of n ordinary tokens round(rate n) are told, and at least one; of whole words as many as are no more than that. Of
    these 0.8 are masked, 0.1 become another ordinary token by chance and 0.1 stay.

    Args:
        tokens: int32[T].
        mask: the token that masks.
        others: int[N], the ids of ordinary tokens.
        ordinary: bool[V], which are.
        goes_on: bool[V], which go on with the word of the token before.

    Returns:
        int32[T], the row; and of P = ceil(rate T) places int32[P], their tokens int32[P], and float32[P], 1 where one
        is told, else 0.
    """
    T, P = len(tokens), min(len(tokens), math.ceil(rate * len(tokens)))
    may = jnp.asarray(ordinary)[tokens]
    word = jnp.cumsum(~jnp.asarray(goes_on)[tokens])  # of each token its word's number
    drawn = draw(jax.random.uniform, fold(key, "masked"), (T + 1,))[word]
    _, places = jax.lax.top_k(jnp.where(may, drawn, -1.0), P)  # a word's pieces side by side, the first one first
    told = (jnp.arange(P) < jnp.clip(jnp.round(rate * may.sum()), 1, P)) & may[places]
    here = word[places]
    pieces = ((here[:, None] == word[None]) & may[None]).sum(axis=1)
    told &= pieces == ((here[:, None] == here[None]) & told[None]).sum(axis=1)  # not a part of a word
    kind = draw(jax.random.uniform, fold(key, "kind"), (P,))
    other = jnp.asarray(others)[draw(jax.random.randint, fold(key, "token"), (P,), 0, len(others))]
    targets = tokens[places]
    becomes = jnp.where(kind < MASKED, mask, jnp.where(kind < MASKED + RANDOM, other, targets))
    read = tokens.at[places].set(jnp.where(told, becomes, targets).astype(tokens.dtype))
    return read, places, targets, told.astype(jnp.float32)
