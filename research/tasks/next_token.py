"""The next token of running text."""

import jax
import jax.numpy as jnp

from research.errors import UserError
from research.tasks.losses import check_shape, token_log_probs, token_sums
from research.tasks.task import Task, apply, check_head


def next_token(spec):
    """Cross-entropy of each token given those before it; perplexity per token, and bits per byte of the original text
    where the tokenizer keeps all of it (characters, bytes, blanks and bpe, without `normalize`).

    Batches hold tokens int32[B, T], what is read, targets int32[B, T], what is to come, padding where nothing is
    scored, and mask float32[B]. Each target counts once. Packed documents bring positions and segments, int32[B, T],
    which go to the model as they are.

    A model that has a method `features`, which gives what its head reads and the head, is scored in pieces, so that the
    logits of all tokens are never there at once; of another its own logits are scored.
    """
    if "targets" not in spec.features or spec.tokenizer is None:
        raise UserError(
            2, f"config.task.name: next_token wants running text; {spec.name} has {', '.join(spec.features)}"
        )

    packing = [field for field in ("positions", "segments") if field in spec.features]

    def inputs(spec, config):
        tokens = jax.ShapeDtypeStruct((1, *spec.features["tokens"][0]), jnp.int32)
        return dict.fromkeys(("tokens", "mask", *packing), tokens)

    dtype = lambda model: getattr(model, "dtype", "float32")  # of the head's products
    counts_bytes = spec.counts_bytes and spec.tokenizer.counts_bytes()

    def read(model, variables, batch, **training):
        """The head's inputs [B, T, D], kernel and bias, or logits and None twice; and the model's state."""
        check_head(model, "tokens", "next_token")
        given = (batch["tokens"], batch["tokens"] != spec.tokenizer.pad, *(batch[field] for field in packing))
        if not hasattr(model, "features"):
            logits, model_state = apply(model, variables, *given, **training)
            check_shape(logits, (*batch["targets"].shape, spec.vocabulary), "next_token")
            return (logits, None, None), model_state
        (x, kernel, bias), model_state = apply(model, variables, *given, method="features", **training)
        check_shape(x, (*batch["targets"].shape, kernel.shape[0]), "next_token")
        check_shape(kernel, (kernel.shape[0], spec.vocabulary + getattr(model, "unused_rows", 0)), "next_token")
        return (x, kernel, bias), model_state

    def sums(model, head, batch):
        mask = (batch["targets"] != spec.tokenizer.pad) * batch["mask"][:, None]
        loss, right = token_sums(*head, batch["targets"], mask, dtype(model))
        losses = (loss, mask.sum())
        metrics = {"perplexity": losses, "accuracy": (right, mask.sum())}
        if counts_bytes:
            size = (jnp.asarray(spec.tokenizer.token_bytes)[batch["targets"]] * mask).sum()
            metrics["bits_per_byte"] = (loss, size)
        return losses, metrics

    def loss(model, variables, batch, keys, train):
        head, model_state = read(model, variables, batch, train=train, keys=keys)
        losses, metrics = sums(model, head, batch)
        return {"loss": losses}, metrics, model_state

    def evaluate(model, variables, batch, keys):
        head, _ = read(model, variables, batch)
        losses, metrics = sums(model, head, batch)
        return {"loss": losses, **metrics}, {}

    def predict(model, variables, batch):
        head, _ = read(model, variables, batch)
        return {"log_probabilities": token_log_probs(*head, batch["targets"], dtype(model))}

    return Task(inputs, loss, evaluate, lambda arrays: {}, predict)
