"""One label an image."""

import jax
import jax.numpy as jnp

from research.errors import UserError
from research.tasks.task import Task


def classify_images(
    spec, *, label_smoothing: float = 0.0, mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,)
):
    """Softmax cross-entropy on images scaled to [0, 1], less `mean`, over `std` (one number, or one a channel).

    Batches hold image uint8 or float [B, H, W, C] in [0, 255], label int32[B], mask float32[B], and where images were
    mixed (Zhang et al. 2018) mixed_label int32[B] and mix float32[B], the share of `label`.
    """

    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, spec.features["image"][0][-1]):
            raise UserError(
                2,
                f"config.task.{name}: {len(values)} numbers; give one, or one for each channel of "
                f"{spec.features['image'][0]}",
            )

    def inputs(spec, config):
        shape, _ = spec.features["image"]
        return {"image": jax.ShapeDtypeStruct((1, *shape), jnp.float32)}

    def normalised(image):
        shift, scale = (jnp.asarray(x, jnp.float32).reshape(1, 1, 1, -1) for x in (mean, std))
        return (image.astype(jnp.float32) / 255 - shift) / scale

    def loss(model, variables, batch, keys, train):
        mutable = [name for name in variables if name != "params"] if train else False
        logits = model.apply(
            variables,
            normalised(batch["image"]),
            batch["mask"],
            train=train,
            rngs={"dropout": keys["dropout"]},
            mutable=mutable,
        )
        logits, model_state = logits if mutable is not False else (logits, {})
        losses = cross_entropy(logits, batch["label"], label_smoothing)
        if "mixed_label" in batch:
            mixed = cross_entropy(logits, batch["mixed_label"], label_smoothing)
            losses = batch["mix"] * losses + (1 - batch["mix"]) * mixed
        metrics = {"accuracy": masked(is_in_top(logits, batch["label"], 1), batch["mask"])}
        return {"loss": masked(losses, batch["mask"])}, metrics, model_state

    def evaluate(model, variables, batch):
        logits = model.apply(variables, normalised(batch["image"]), batch["mask"], train=False)
        sums = {
            "loss": cross_entropy(logits, batch["label"]),
            "accuracy": is_in_top(logits, batch["label"], 1),
        }
        if logits.shape[-1] > 5:
            sums["top5_accuracy"] = is_in_top(logits, batch["label"], 5)
        return {name: masked(values, batch["mask"]) for name, values in sums.items()}, {}

    def predict(model, variables, batch):
        logits = model.apply(variables, normalised(batch["image"]), train=False)
        return {"probabilities": jax.nn.softmax(logits.astype(jnp.float32))}

    return Task(inputs, loss, evaluate, lambda arrays: {}, predict)


def cross_entropy(logits, labels, smoothing=0.0):
    """Label-smoothed cross-entropies in nats. Szegedy et al. 2016, section 7 (arXiv:1512.00567).

    Args:
        logits: float[B, C], unnormalised; reduced in float32 or better.
        labels: int32[B] in [0, C).
        smoothing: in [0, 1): q = (1 - smoothing) onehot + smoothing / C.

    Returns:
        float32[B].
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    picked = jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    return -(1 - smoothing) * picked - smoothing * log_probs.mean(axis=-1)


def is_in_top(logits, labels, k):
    """float32[B]: 1 where fewer than k classes have a larger logit, else 0; of equals the first counts as larger."""
    logits = logits.astype(jnp.float32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    place = jnp.arange(logits.shape[-1])
    ahead = (logits > own) | ((logits == own) & (place[None] < labels[:, None]))
    return ((ahead.sum(axis=-1) < k) & jnp.isfinite(own[:, 0])).astype(jnp.float32)


def masked(values, mask):
    """(sum, count) of values float[B] under mask float32[B]; where it is 0, nothing is looked at, not even a nan."""
    return jnp.where(mask > 0, values * mask, 0.0).sum(), mask.sum()
