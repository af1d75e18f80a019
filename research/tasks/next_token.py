"""The next token of running text."""

import jax
import jax.numpy as jnp

from research.errors import UserError
from research.tasks.losses import check_shape, cross_entropy, is_in_top, masked
from research.tasks.task import Task, apply


def next_token(spec):
    """Cross-entropy of each token given those before it; perplexity a token, and bits a byte of the text where
    the tokenizer keeps all of it (characters, bytes, bpe).

    Batches hold tokens int32[B, T], what is read, targets int32[B, T], what is to come, padding where nothing is
    scored, and mask float32[B]. Each target counts once.
    """
    if "targets" not in spec.features or spec.tokenizer is None:
        raise UserError(
            2, f"config.task.name: next_token wants running text; {spec.name} has {', '.join(spec.features)}"
        )

    def inputs(spec, config):
        tokens = jax.ShapeDtypeStruct((1, *spec.features["tokens"][0]), jnp.int32)
        return {"tokens": tokens, "mask": tokens}

    lossless = spec.tokenizer.token_bytes is not None

    def sums(logits, batch):
        check_shape(logits, (*batch["targets"].shape, spec.vocabulary), "next_token")
        mask = (batch["targets"] != spec.tokenizer.pad) * batch["mask"][:, None]
        losses = masked(cross_entropy(logits, batch["targets"]), mask)
        metrics = {"perplexity": losses, "accuracy": masked(is_in_top(logits, batch["targets"], 1), mask)}
        if lossless:
            size = (jnp.asarray(spec.tokenizer.token_bytes)[batch["targets"]] * mask).sum()
            metrics["bits_per_byte"] = (losses[0], size)
        return losses, metrics

    def model_inputs(batch):
        return batch["tokens"], batch["tokens"] != spec.tokenizer.pad

    def loss(model, variables, batch, keys, train):
        logits, model_state = apply(model, variables, *model_inputs(batch), train=train, keys=keys)
        losses, metrics = sums(logits, batch)
        return {"loss": losses}, metrics, model_state

    def evaluate(model, variables, batch, keys):
        logits, _ = apply(model, variables, *model_inputs(batch))
        losses, metrics = sums(logits, batch)
        return {"loss": losses, **metrics}, {}

    def predict(model, variables, batch):
        logits, _ = apply(model, variables, *model_inputs(batch))
        return {"log_probabilities": -cross_entropy(logits, batch["targets"])}

    return Task(inputs, loss, evaluate, lambda arrays: {}, predict)
