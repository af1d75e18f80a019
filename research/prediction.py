"""From images to the classes that a run thinks most likely."""

import jax
import numpy as np

from research import config as configs
from research.data import open_dataset
from research.data.batches import eval_batches, open_split
from research.errors import UserError


def read_images(paths, spec):
    """Image files at the size and with the channels of the data: [(name, image uint8[H, W, C], None)].

    Raises:
        UserError: 3, for a file that is missing or no image.
    """
    from PIL import Image

    height, width, channels = spec.features["image"][0]
    images = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip, not scale
                    image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
                image = image.convert("L" if channels == 1 else "RGB").resize(
                    (width, height), Image.Resampling.BILINEAR
                )
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else f"not an image: {error}"
            raise UserError(3, f"{path}: {reason}") from error
        images.append((str(path), np.asarray(image, np.uint8).reshape(height, width, channels), None))
    return images


def read_split(run, split):
    """Images of a split, as read_images gives those of files, with their labels."""
    dataset = open_dataset(run.config.data.name, configs.arguments("data", run.config))
    text = run.config.data.splits.get(split, split)
    if text is None:
        raise UserError(2, f"--split: the run has no {split} split")
    opened = open_split(dataset, text, f"--split={split}", run.config.data.memory_limit_bytes, 0)
    for start, batch in enumerate(eval_batches(opened, 256)):
        for i in np.flatnonzero(batch["mask"]):
            yield f"{text} {start * 256 + i}", batch["image"][i], int(batch["label"][i])


def top_classes(run, images, top):
    """For each image {"input": name, "top": [{"class", "probability"}], "label": the true class where it is known}."""
    predict = jax.jit(lambda variables, batch: run.task.predict(run.model, variables, batch)["probabilities"])
    images, labels = list(images), run.spec.labels
    if run.config.task.name != "classify_images":
        raise UserError(2, f"{run.folder}: its task {run.config.task.name} predicts no classes of images")
    size = min(256, len(images))
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        stacked = np.stack([image for _, image, _ in chunk + chunk[-1:] * (size - len(chunk))])
        for (name, _, label), probabilities in zip(chunk, jax.device_get(predict(run.variables, {"image": stacked}))):
            best = np.argsort(-probabilities, kind="stable")[:top]
            row = {"input": name, "top": [{"class": labels[i], "probability": float(probabilities[i])} for i in best]}
            yield row if label is None else {**row, "label": labels[label]}
