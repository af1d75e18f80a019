"""From images and texts to the classes, or the masked words, that a run thinks most likely."""

import jax
import numpy as np

from research import config as configs
from research import runs
from research.data import open_dataset
from research.data.batches import open_split, read
from research.errors import UserError
from research.inference.translation import encode, padded


def read_images(paths, spec):
    """Image files at the size and with the channels of the data: [(name, {"image": uint8[H, W, C]}, None)].

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
        image = np.asarray(image, np.uint8).reshape(height, width, channels)
        images.append((str(path), {"image": image}, None))
    return images


def read_texts(run, texts, seconds=()):
    """Texts, or pairs of them, as tokens: [(text, {field: array}, None)]; of a run of masked_lm with a mask in each,
    whose first is told.

    Raises:
        UserError: 2, for a run of another task, no pair where the run reads pairs, or a text that cannot be read.
    """
    fields = _fields(run)
    if "tokens" not in fields:
        raise UserError(2, f"--text: the run's task {run.config.task.name} classifies no texts")
    if run.config.task.name == "masked_lm":
        mask = run.tokenizer.vocabulary[run.tokenizer.mask]
        for text in texts:
            if mask not in text:
                raise UserError(2, f"--text: {text!r} has no {mask}, for which a word could be told")
    if ("types" in fields) != bool(seconds):
        what = "pairs of texts: give --second" if "types" in fields else "single texts: leave --second out"
        raise UserError(2, f"--text: the run reads {what}")
    names, second_names = ["--text"] * len(texts), ["--second"] * len(seconds)
    pairs = [encode(run, texts, names)] + [encode(run, seconds, second_names)] * bool(seconds)
    joined = [run.tokenizer.join(*pair) for pair in zip(*pairs)]
    closed = len(run.tokenizer.frame[1])
    tokens = padded(run, [tokens for tokens, _ in joined], "tokens", names, closed)
    types = [np.pad(types, (0, len(row) - len(types))).astype(np.int32) for (_, types), row in zip(joined, tokens)]
    shown = [" | ".join(pair) for pair in zip(texts, seconds)] if seconds else texts
    return [
        (name, {field: {"tokens": row, "types": type}[field] for field in fields}, None)
        for name, row, type in zip(shown, tokens, types)
    ]


def read_split(run, split):
    """Examples of a split with their labels, as read_images gives those of files."""
    fields = _fields(run)
    if run.spec.classes is None:
        raise UserError(2, f"--split: {run.spec.name} has no labels; give --text")
    for name, example in examples(run, split):
        words = run.tokenizer.decode(example["tokens"]).split() if "tokens" in fields else []
        shown = f"  {' '.join(words)[:60]}" if words else ""
        yield f"{name}{shown}", {field: example[field] for field in fields}, int(example["label"])


def examples(run, split):
    """Each example of a split, named by its number: (name, {field: array})."""
    dataset = open_dataset(run.config.data.name, configs.arguments("data", run.config), run.tokenizer)
    text = run.config.data.splits.get(split, split)
    if text is None:
        raise UserError(2, f"--split: the run has no {split} split")
    opened = open_split(dataset, text, f"--split={split}", run.config.data.memory_limit_bytes, 0)
    runs.check_data(run.folder, dataset, [text])
    for i in range(len(opened)):
        yield f"{text} {i}", {field: array[0] for field, array in read(opened, [i]).items()}


def _fields(run):
    """The fields that a classifier reads."""
    known = {"classify_images": ("image",), "classify_text": ("tokens", "types"), "masked_lm": ("tokens",)}
    if run.config.task.name not in known:
        raise UserError(2, f"{run.folder}: its task {run.config.task.name} predicts no classes")
    return [field for field in known[run.config.task.name] if field in run.spec.features]


def top_classes(run, inputs, top):
    """For each input {"input": name, "top": [{"class", "probability"}], "label": the true class where it is known}."""
    predict = jax.jit(lambda variables, batch: run.task.predict(run.model, variables, batch)["probabilities"])
    inputs, labels = list(inputs), run.spec.labels or run.tokenizer.vocabulary
    found = in_batches(lambda batch: predict(run.variables, batch), [fields for _, fields, _ in inputs])
    for (name, _, label), probabilities in zip(inputs, found):
        best = np.argsort(-probabilities[: len(labels)], kind="stable")[:top]  # unused rows have no word
        row = {"input": name, "top": [{"class": labels[i], "probability": float(probabilities[i])} for i in best]}
        yield row if label is None else {**row, "label": labels[label]}


def in_batches(function, inputs):
    """What a function of a batch gives for each of its rows: trees of arrays; of one shape, so that it is traced once.

    Args:
        inputs: [{field: array}].
    """
    size = min(256, len(inputs))
    for start in range(0, len(inputs), size):
        chunk = inputs[start : start + size]
        filled = chunk + chunk[-1:] * (size - len(chunk))
        batch = {field: jax.device_put(np.stack([one[field] for one in filled])) for field in filled[0]}
        found = jax.device_get(function(batch))
        yield from (jax.tree.map(lambda x: x[i], found) for i in range(len(chunk)))
