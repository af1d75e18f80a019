"""One label an example: of an image, or of a text."""

import jax
import jax.numpy as jnp

from research.errors import UserError
from research.tasks.losses import check_shape, cross_entropy, is_in_top, masked
from research.tasks.task import Task, apply, check_head


def classify_images(
    spec, *, label_smoothing: float = 0.0, mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,)
):
    """Softmax cross-entropy on images scaled to [0, 1], less `mean`, over `std` (one number, or one a channel).

    Batches hold image uint8 or float [B, H, W, C] in [0, 255], label int32[B], mask float32[B], and where images were
    mixed (Zhang et al. 2018) mixed_label int32[B] and mix float32[B], the share of `label`.
    """
    if "image" not in spec.features:
        raise UserError(
            2, f"config.task.name: classify_images wants images; {spec.name} has {', '.join(spec.features)}"
        )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, spec.features["image"][0][-1]):
            raise UserError(
                2,
                f"config.task.{name}: {len(values)} numbers; give one, or one for each channel of "
                f"{spec.features['image'][0]}",
            )

    def inputs(spec, config):
        shape, _ = spec.features["image"]
        mask = jax.ShapeDtypeStruct((1,), jnp.float32)
        return {"image": jax.ShapeDtypeStruct((1, *shape), jnp.float32), "mask": mask}

    def model_inputs(batch):
        shift, scale = (jnp.asarray(x, jnp.float32).reshape(1, 1, 1, -1) for x in (mean, std))
        image = (batch["image"].astype(jnp.float32) / 255 - shift) / scale
        return {"image": image} | ({"mask": batch["mask"]} if "mask" in batch else {})

    return _classifier(spec, inputs, model_inputs, label_smoothing)


def classify_text(spec):
    """Softmax cross-entropy on texts, or pairs of them. Batches hold tokens int32[B, T], padded, of pairs types
    int32[B, T], which text each token is of, label int32[B] and mask float32[B]."""
    if spec.tokenizer is None or "tokens" not in spec.features or spec.classes is None:
        raise UserError(2, f"config.task.name: classify_text wants labelled text; {spec.name} has none")

    def inputs(spec, config):
        tokens = jax.ShapeDtypeStruct((1, *spec.features["tokens"][0]), jnp.int32)
        return dict.fromkeys(("tokens", "mask", *(("types",) if "types" in spec.features else ())), tokens)

    def model_inputs(batch):
        own = {name: batch[name] for name in ("tokens", "types") if name in spec.features}
        return {**own, "mask": batch["tokens"] != spec.tokenizer.pad}

    return _classifier(spec, inputs, model_inputs, 0.0)


def _classifier(spec, inputs, model_inputs, label_smoothing):
    """The Task of a model that gives logits [B, classes] for model_inputs(batch)."""

    def logits_of(model, variables, batch, **training):
        check_head(model, "label", "classify_text")
        logits, model_state = apply(model, variables, **model_inputs(batch), **training)
        check_shape(logits, (len(batch["mask"]), spec.classes), "a classifier")
        return logits, model_state

    def loss(model, variables, batch, keys, train):
        logits, model_state = logits_of(model, variables, batch, train=train, keys=keys)
        losses = cross_entropy(logits, batch["label"], label_smoothing)
        if "mixed_label" in batch:
            mixed = cross_entropy(logits, batch["mixed_label"], label_smoothing)
            losses = batch["mix"] * losses + (1 - batch["mix"]) * mixed
        metrics = {"accuracy": masked(is_in_top(logits, batch["label"], 1), batch["mask"])}
        return {"loss": masked(losses, batch["mask"])}, metrics, model_state

    def evaluate(model, variables, batch, keys):
        logits, _ = logits_of(model, variables, batch)
        sums = {
            "loss": cross_entropy(logits, batch["label"]),
            "accuracy": is_in_top(logits, batch["label"], 1),
        }
        if logits.shape[-1] > 5:
            sums["top5_accuracy"] = is_in_top(logits, batch["label"], 5)
        return {name: masked(values, batch["mask"]) for name, values in sums.items()}, {}

    def predict(model, variables, batch):
        logits, _ = apply(model, variables, **model_inputs(batch))
        return {"probabilities": jax.nn.softmax(logits.astype(jnp.float32))}

    return Task(inputs, loss, evaluate, lambda arrays: {}, predict)
