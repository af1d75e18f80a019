"""From images and texts to the classes, or the masked words, that a run thinks most likely."""

import jax
import numpy as np

from research import config as configs
from research.data import open_dataset
from research.data.batches import open_split, read
from research.errors import UserError
from research.inference.translation import encode


def read_images(paths, spec):
    """Image files at the size and with the channels of the data: [(name, image uint8[H, W, C], None)].

    Raises:
        UserError: 3, for a file that is missing or no image.
    """
    from PIL import Image

    if "image" not in spec.features:
        raise UserError(2, f"image files: the run was trained on {spec.name}, which has none; give --text or --split")
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


def read_texts(run, texts):
    """Texts as tokens: [(text, int32[T], None)]; of a run of masked_lm with a mask in each, whose first is told."""
    if run.config.task.name not in ("classify_text", "masked_lm"):
        raise UserError(2, f"--text: the run's task {run.config.task.name} classifies no texts")
    if run.config.task.name == "masked_lm":
        mask = run.tokenizer.vocabulary[run.tokenizer.mask]
        for text in texts:
            if mask not in text:
                raise UserError(2, f"--text: {text!r} has no {mask}, for which a word could be told")
    return list(zip(texts, encode(run, texts, "tokens", ["--text"] * len(texts)), [None] * len(texts)))


def read_split(run, split):
    """Examples of a split with their labels, as read_images gives those of files."""
    field = _field(run)
    if run.spec.classes is None:
        raise UserError(2, f"--split: {run.spec.name} has no labels; give --text")
    dataset = open_dataset(run.config.data.name, configs.arguments("data", run.config), run.tokenizer)
    text = run.config.data.splits.get(split, split)
    if text is None:
        raise UserError(2, f"--split: the run has no {split} split")
    opened = open_split(dataset, text, f"--split={split}", run.config.data.memory_limit_bytes, 0)
    for i in range(len(opened)):
        example = read(opened, [i])
        words = run.tokenizer.decode(example[field][0]).split() if field == "tokens" else []
        shown = f"  {' '.join(words)[:60]}" if words else ""
        yield f"{text} {i}{shown}", example[field][0], int(example["label"][0])


def _field(run):
    """The field that a classifier reads."""
    fields = {"classify_images": "image", "classify_text": "tokens", "masked_lm": "tokens"}
    if run.config.task.name not in fields:
        raise UserError(2, f"{run.folder}: its task {run.config.task.name} predicts no classes")
    return fields[run.config.task.name]


def top_classes(run, inputs, top):
    """For each input {"input": name, "top": [{"class", "probability"}], "label": the true class where it is known}."""
    predict = jax.jit(lambda variables, batch: run.task.predict(run.model, variables, batch)["probabilities"])
    field, inputs, labels = _field(run), list(inputs), run.spec.labels or run.tokenizer.vocabulary
    size = min(256, len(inputs))
    for start in range(0, len(inputs), size):
        chunk = inputs[start : start + size]
        stacked = np.stack([x for _, x, _ in chunk + chunk[-1:] * (size - len(chunk))])
        for (name, _, label), probabilities in zip(
            chunk, jax.device_get(predict(run.variables, {field: jax.device_put(stacked)}))
        ):
            best = np.argsort(-probabilities, kind="stable")[:top]
            row = {"input": name, "top": [{"class": labels[i], "probability": float(probabilities[i])} for i in best]}
            yield row if label is None else {**row, "label": labels[label]}
