"""Which leaves a config may have: type, default, meaning, bounds, and how a value is read as a type. What a thing named
in it adds, its signature says."""

import ast
import math
import re
import types
import typing
from typing import Any, NamedTuple

from research.errors import UserError, nearest
from research.optimizers import ROLES, SCHEDULES


class Field(NamedTuple):
    type: Any  # int, float, bool, str, tuple[int, ...] and so on, or one of these | None
    default: Any
    help: str = ""


FIELDS = {
    "seed": Field(int, 0, "seed of everything random: initial parameters, order, augmentation, dropout"),
    "init_from": Field(
        str | None,
        None,
        "a run folder to take parameters from, or hf:FOLDER_OR_NAME, Hugging Face's; FOLDER:PREFIX,PREFIX takes a part",
    ),
    "data.name": Field(str, "digits", "the data set"),
    "data.batch_size": Field(int, 64, "examples a step, over all devices, microbatches and processes"),
    "data.eval_batch_size": Field(int, 500, "examples an evaluation step; changes no number"),
    "data.splits.train": Field(str, "train", "a TFDS split string, as train[:90%]"),
    "data.splits.validation": Field(str | None, None, "none: the data's own, else the last tenth of train"),
    "data.splits.test": Field(str | None, "test", "read once, at the end; none: no test"),
    "data.augment.crop_padding": Field(int, 0, "pixels of zeros around the image before a random crop to its size"),
    "data.augment.flip": Field(bool, False, "flip left and right, half of the time"),
    "data.augment.rotation": Field(float, 0.0, "rotate by up to this many degrees either way"),
    "data.augment.scale": Field(float, 0.0, "scale by a factor between 1 - scale and 1 + scale"),
    "data.augment.cutout": Field(int, 0, "side in pixels of a square set to zero (DeVries and Taylor 2017)"),
    "data.augment.mixup": Field(float, 0.0, "alpha of the Beta that mixes two images (Zhang et al. 2018)"),
    "data.augment.word_dropout": Field(float, 0.0, "share of input tokens made unknown (Bowman et al. 2016)"),
    "data.augment.swap": Field(float, 0.0, "share of pairs of neighbouring input tokens exchanged"),
    "data.augment.span_mask": Field(float, 0.0, "share of input tokens made unknown in spans of about three"),
    "data.memory_limit_bytes": Field(int, 2**31, "sets that decode to no more are held in memory; others stream"),
    "data.workers": Field(int, 0, "processes that decode a streamed set; 0: threads of this one"),
    "model.name": Field(str, "cnn", "the model"),
    "task.name": Field(str, "classify_images", "the task"),
    "optimizer.name": Field(str, "adam", "the optimizer"),
    "optimizer.learning_rate": Field(float, 1e-3, "its peak; the schedule multiplies it by a factor in [0, 1]"),
    "optimizer.schedule": Field(str, "constant", "after the warm-up: " + ", ".join(sorted(SCHEDULES))),
    "optimizer.warmup_steps": Field(int | None, None, "steps over which the rate rises linearly to its peak"),
    "optimizer.warmup_epochs": Field(float | None, None, "the same in epochs"),
    "optimizer.decay_steps": Field(int | None, None, "wsd: length of the final decay; exponential: its unit of time"),
    "optimizer.decay_epochs": Field(float | None, None, "the same in epochs"),
    "optimizer.end_factor": Field(float, 0.0, "linear, cosine, wsd: factor at the end; exponential: a unit's factor"),
    "optimizer.boundaries_steps": Field(tuple[int, ...] | None, None, "piecewise: where the factor changes"),
    "optimizer.boundaries_epochs": Field(tuple[float, ...] | None, None, "the same in epochs"),
    "optimizer.boundary_factors": Field(tuple[float, ...], (), "piecewise: the factor from each boundary on"),
    "optimizer.weight_decay": Field(float, 0.0, "of the roles in config.optimizer.decayed"),
    "optimizer.clip_norm": Field(float | None, None, "largest global norm of the gradient"),
    "optimizer.decayed": Field(
        tuple[str, ...], ("kernel",), "roles that weight decay shrinks: kernel, embedding, bias or scale"
    ),
    "optimizer.rules": Field(tuple[str, ...], (), "regex=factor or regex=frozen on parameter paths; the first counts"),
    "train.steps": Field(int | None, None, "length of the run in steps"),
    "train.epochs": Field(float | None, None, "length of the run in epochs"),
    "train.parallel": Field(str, "jit", "jit (arrays sharded over a mesh) or pmap (replicated state)"),
    "train.microbatches": Field(int, 1, "parts that a batch is cut into; gradients are added, exactly"),
    "train.steps_per_call": Field(int, 1, "steps in one dispatch"),
    "train.hang_seconds": Field(
        float | None, 1800.0, "seconds without progress after which the process ends with code 8; none: never"
    ),
    "train.on_nonfinite": Field(
        str,
        "halt",
        "if a loss, gradient or update is not finite: halt, skip the update, or rollback to the last checkpoint with "
        "half the learning rate",
    ),
    "train.nonfinite_limit": Field(
        int, 5, "consecutive skipped updates, or rollbacks in total, after which a run halts"
    ),
    "train.debug_nans": Field(bool, False, "name the operation and the line that produce a nan; slower"),
    "train.ema": Field(
        float | None, None, "decay of averages of parameters and batch statistics, which evaluation then reads"
    ),
    "train.early_stopping.metric": Field(str | None, None, "validation metric to watch; none: never stop early"),
    "train.early_stopping.patience": Field(int, 5, "evaluations without a better one before the run stops"),
    "eval.every_steps": Field(int | None, None, "steps between evaluations"),
    "eval.every_epochs": Field(float | None, None, "the same in epochs; 1 where neither is given"),
    "eval.metric": Field(str, "accuracy", "validation metric that says which checkpoint is best"),
    "eval.direction": Field(str | None, None, "max or min: which values are better; none: follows from eval.metric"),
    "checkpoint.every_steps": Field(int | None, None, "steps between checkpoints; none: with each evaluation"),
    "checkpoint.keep": Field(int, 2, "newest checkpoints kept, beside the best"),
    "log.every_steps": Field(int, 100, "steps that one row of training metrics sums up"),
}

# What a resumed run may change: the same numbers, computed in another way.
MAY_CHANGE = ("data.workers", "data.memory_limit_bytes", "train.hang_seconds", "train.debug_nans")

MEANINGS = {  # of arguments of named things, by the leaf's name, or its path where sections differ
    "tokenizer": "characters bytes blanks words bpe wordpiece bert or unigram; a tokenizer.json; or hf:FOLDER_OR_NAME",
    "vocabulary_size": "at most so many tokens",
    "min_count": "rarer tokens are unknown",
    "normalize": "done to texts first: nfc nfkc lowercase strip_accents strip_control strip_tags strip_urls whitespace",
    "max_len": "tokens of an example, its end with it; what is longer is cut, and counted in the log",
    "buckets": "lengths that batches are cut to, rising; none: all have max_len",
    "reverse": "from the target to the source",
    "newline": "what stands for the end of a line, as ' <eos> ' for words",
    "context": "tokens that a window of evaluation reads before those it scores",
    "model.context": "how many positions there are: no text may be longer",
    "digits": "of the largest numbers",
    "packed": "documents see nothing of each other, and each begins at position 0",
    "remove": "what is cut out of each message: headers, footers, quotes",
    "folder": "of a user's own: text files, a document each, or one; of parallel, train.src and train.tgt",
    "source": "suffix of the source's files",
    "target": "suffix of the target's files",
    "cell": "of the recurrence",
    "embedding": "width of embeddings",
    "width": "of layers; of each direction of a recurrence",
    "bidirectional": "the encoder reads both ways",
    "attention": "how the decoder looks at the source",
    "heads": "of attention; a divisor of the width",
    "types": "parts of a text that are told apart, as the two of a pair",
    "norm_first": "norms stand before attention and feed-forward layers, and not behind them",
    "rate": "share of a row's tokens that are masked and told",
    "whole_words": "all pieces of a word are masked, or none",
    "weights": "of the loss' terms, as next_loss=0.5; 1 where not named",
    "kv_heads": "of keys and values, each shared by heads / kv_heads of the queries; none: as many as heads",
    "hidden": "width of the feed-forward layers; none: 4 times the width",
    "positions": "learned, sinusoidal, rotary or none",
    "model.norm": "which normalisation",
    "activation": "of the feed-forward layers: gelu_tanh, gelu or swiglu",
    "bias": "of norms and products",
    "remat": "the backward pass computes each block again: the memory of one block, a third more time",
    "scan": "layers stacked, one compiled block for all of them: compiles sooner, changes no number",
    "input_feeding": "what was attended to is fed to the next step",
    "head": "what is told of a text: tokens, label, tags, span or none; by encoders masked, next, pretraining, pooled",
    "tied": "one matrix embeds tokens and gives the logits",
    "dropout": "share of units dropped in training",
    "vocabulary": "filled in from the data",
    "unused_rows": "rows of the embedding after the vocabulary, as in weights that are padded; never predicted",
    "classes": "filled in from the data",
    "dtype": "to compute in; parameters are float32",
    "label_smoothing": "share of probability spread over all outcomes",
    "sampling_rate": "chance that a step of training reads the model's own last output; 0: teacher forcing",
    "beam_size": "hypotheses kept in evaluation and translation; 1: greedy",
    "bleu_tokenizer": "by which BLEU counts words, as sacreBLEU names it; zh for Chinese, char for no words at all",
    "length_penalty": "a hypothesis' score is its log-probability over its length to this power",
}
TEXT_AUGMENT = ("word_dropout", "swap", "span_mask")

# Bounds by the leaf's name, wherever it stands: (lowest, highest, whether the highest itself is allowed).
_RATE, _COUNT = (0, 1, False), (1, math.inf, True)
BOUNDS = {
    **dict.fromkeys(
        (
            "dropout",
            "label_smoothing",
            "sampling_rate",
            *TEXT_AUGMENT,
            "momentum",
            "b1",
            "b2",
            "beta",
            "adam_b1",
            "adam_b2",
            "ema",
            "decay",
        ),
        _RATE,
    ),
    **dict.fromkeys(("batch_size", "eval_batch_size", "microbatches", "steps_per_call", "keep", "patience"), _COUNT),
    "nonfinite_limit": _COUNT,
    **dict.fromkeys(("every_steps", "steps", "width", "widths", "dense", "classes", "ns_steps"), _COUNT),
    **dict.fromkeys(("vocabulary", "embedding", "layers", "heads", "kv_heads", "hidden", "types"), _COUNT),
    **dict.fromkeys(("min_count", "beam_size"), _COUNT),
    "max_len": (2, math.inf, True),
    **dict.fromkeys(("window", "negatives", "shared_negatives"), _COUNT),
    "subsample": (0, 1, True),
    "rate": (1e-6, 1, False),
    **dict.fromkeys(
        ("seed", "learning_rate", "weight_decay", "workers", "crop_padding", "cutout", "mixup"), (0, math.inf, True)
    ),
    **dict.fromkeys(("warmup_steps", "warmup_epochs", "decay_steps", "decay_epochs"), (0, math.inf, True)),
    **dict.fromkeys(("memory_limit_bytes", "epochs", "rotation"), (0, math.inf, True)),
    **dict.fromkeys(("boundaries_steps", "boundaries_epochs"), (0, math.inf, True)),
    **dict.fromkeys(
        ("every_epochs", "hang_seconds", "clip_norm", "eps", "initial_accumulator_value"), (1e-30, math.inf, True)
    ),
    "boundary_factors": (0, 1, True),
    "scale": (0, 1, False),
    "vocabulary_size": (5, math.inf, True),
    "digits": (1, 18, True),
    "context": (0, math.inf, True),
    "length_penalty": (0, math.inf, True),
    "std": (1e-6, math.inf, True),
    "end_factor": (0, 1, True),
}
CHOICES = {  # by the leaf's name, too
    "schedule": tuple(SCHEDULES),
    "parallel": ("jit", "pmap"),
    "direction": ("max", "min"),
    "on_nonfinite": ("halt", "skip", "rollback"),
    "dtype": ("float32", "bfloat16"),
    "bleu_tokenizer": (
        "13a",
        "intl",
        "zh",
        "ja-mecab",
        "ko-mecab",
        "char",
        "none",
        "flores101",
        "flores200",
        "spBLEU-1K",
    ),
    "cell": ("rnn", "lstm", "gru"),
    "decayed": ROLES,
    "attention": ("none", "additive", "multiplicative"),
}


def kind_of(annotation):
    """`float | None` -> (float, True)."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return kinds[0], True
    return annotation, False


def type_name(annotation):
    """A type in words: "tuple of int or none"."""
    kind, optional = kind_of(annotation)
    name = f"tuple of {typing.get_args(kind)[0].__name__}" if typing.get_origin(kind) is tuple else kind.__name__
    return name + (" or none" if optional else "")


def text_of(value):
    """A value as `parse` reads it back: 1,2 for a tuple, none, true."""
    if isinstance(value, tuple):
        return ",".join(map(text_of, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def brief(value):
    """A value of a config for people: a number that was drawn has four digits. CSV and JSON have them all."""
    return text_of(float(f"{value:.4g}") if isinstance(value, float) else value)


def parse(path, annotation, value):
    """A value in the type of its field; text is read as that type.

    Raises:
        UserError: 2, naming the path, for what is not of it.
    """
    kind, optional = kind_of(annotation)
    wrong = UserError(2, f"config.{path}: {value!r} is not {type_name(annotation)}")
    if value is None or (isinstance(value, str) and value.strip().lower() == "none" and optional):
        if not optional:
            raise wrong
        return None
    if typing.get_origin(kind) is tuple:
        if isinstance(value, str):
            value = _items(value)
        if not isinstance(value, (list, tuple)):
            raise wrong
        element = typing.get_args(kind)[0]
        return tuple(parse(path, element, item) for item in value)
    try:
        if kind is bool:
            return value if isinstance(value, bool) else {"true": True, "false": False}[value.strip().lower()]
        if kind is str and isinstance(value, str):
            return value
        if kind is str or isinstance(value, bool):
            raise wrong
        number = kind(value) if isinstance(value, str) or kind(value) == value else None
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError):
        raise wrong from None
    if number is None:
        raise wrong
    if not math.isfinite(number):
        raise UserError(2, f"config.{path}: {value} is not a finite number")
    return number


def check_value(path, value):
    """Checks a leaf, or each element of a tuple, against the bounds and the choices of its name.

    Raises:
        UserError: 2, naming the path.
    """
    leaf = path.rsplit(".", 1)[-1]
    low, high, closed = BOUNDS.get(leaf, (-math.inf, math.inf, True))
    for item in value if isinstance(value, tuple) else (value,):
        if item is not None and item not in CHOICES.get(leaf, (item,)):
            known, near = ", ".join(CHOICES[leaf]), nearest(item, CHOICES[leaf])
            raise UserError(2, f"config.{path}: {item!r} is unknown; known are {known}{near}")
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            continue
        if isinstance(item, int) and high == math.inf and leaf != "memory_limit_bytes":
            high = 2**31 - 1  # largest int32
        if item < low or item > high or (item == high and not closed):
            most = "" if high == math.inf else f" and {'at most' if closed else 'below'} {high}"
            raise UserError(2, f"config.{path}: {item} is out of bounds; it must be at least {low}{most}")


def _items(text):
    """The elements of a tuple written as text: (1, 2), ('a', 'b') or a,b."""
    try:
        value = ast.literal_eval(text)
        return list(value) if isinstance(value, (tuple, list)) else [text.strip()]
    except (ValueError, SyntaxError):
        return split(text)


def split(text):
    """The words of a text between its commas; commas inside brackets are no separators."""
    words = re.findall(r"(?:[^,(\[{]|\([^)]*\)?|\[[^\]]*\]?|\{[^}]*\}?)+", text)
    return [word.strip() for word in words if word.strip()]
