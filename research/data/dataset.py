"""What a data set says of itself, where it is, and its splits as random-access sources."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from research.data.cache import file_sum
from research.errors import UserError, nearest
from research.randomness import generator

UNTAGGED = -100  # in the field `tags`: a token that has none


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An opened data set: metadata alone, no example read yet."""

    name: str
    features: Mapping[str, tuple]  # {field: (shape, dtype)}; a shape with None varies
    examples: Mapping[str, int]  # {split: n}
    open: Callable[[str], Any]  # split -> source: len(source), source[i] -> {field: value}
    classes: int | None = None
    labels: tuple[str, ...] = ()  # names of the classes, where they have any
    tokenizer: Any = None  # research.data.tokenize.Tokenizer, where there is text
    shuffled: bool = False  # whether the order of train says nothing, so that its tail is a fair sample of it
    sequences: tuple[str, ...] = ()  # the fields that hold token ids, int32[T], padded at the right
    beside: tuple[str, ...] = ()  # further fields that have a value for each of these tokens, [T, ...]
    augmented: Mapping[str, tuple] = dataclasses.field(default_factory=dict)  # {input field that data.augment changes:
    # fields that are reordered with it}
    places: tuple[str, ...] = ()  # fields that contain places of tokens, so that tokens must not be reordered
    mapped: bool = False  # whether examples come from memory maps: nothing to decode beforehand, or by other processes
    buckets: tuple[int, ...] = ()  # lengths that batches of tokens are cut to, rising; (): all to their full length
    token_counts: Callable | None = None  # () -> int64[V], how often each token stands in train
    fingerprint: Callable[[str], str] | None = None  # split -> hash of its content; None: not cached
    origin: tuple = ()  # (name in DATASETS, its arguments), by which a worker process opens it again
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of a mixture the data sets
    counts_bytes: bool = True  # see Tokenizer.counts_bytes
    notes: tuple[str, ...] = ()  # lines for the log, such as the unused files of a folder

    @property
    def vocabulary(self):
        """How many tokens there are; None where there is no text."""
        return None if self.tokenizer is None else self.tokenizer.size

    @property
    def pad(self):
        """What fills the fields of token ids."""
        return 0 if self.tokenizer is None else self.tokenizer.pad

    def pieces(self, split, role="split"):
        """A TFDS split string as [(split, start, stop)].

        Raises:
            UserError: 2, for one that is unknown, malformed or empty.
        """
        import tensorflow_datasets as tfds

        where = f"config.data.splits.{role}" if role in ("train", "validation", "test") else role
        infos = [tfds.core.SplitInfo(name=name, shard_lengths=[n], num_bytes=0) for name, n in self.examples.items()]
        known = f"{self.name} has {', '.join(f'{name} ({n})' for name, n in self.examples.items())}"
        try:
            parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(tfds.core.SplitDict(infos))
        except (ValueError, AssertionError) as error:
            near = nearest(split.partition("[")[0], self.examples) if "Unknown split" in str(error) else ""
            near += "; none: no test" if role == "test" else ""
            raise UserError(2, f"{where}: {split!r} is no split: {str(error).splitlines()[0]} {known}{near}") from None
        pieces = []
        for part in parts:
            n = self.examples[part.splitname]
            pieces.append((part.splitname, part.from_ or 0, n if part.to is None else part.to))
        if sum(max(0, stop - start) for _, start, stop in pieces) == 0:
            raise UserError(2, f"{where}: {split!r} is empty; {known}")
        return [(name, start, stop) for name, start, stop in pieces if stop > start]

    def count(self, split, role="split"):
        """How many examples a split string selects."""
        return sum(stop - start for _, start, stop in self.pieces(split, role))

    def bases(self, splits):
        """Returns the sorted names of the base splits that some split strings select from; None selects nothing."""
        return sorted({base for split in splits if split is not None for base, _, _ in self.pieces(split)})

    def carve(self, splits):
        """The split strings of train and validation: where none is asked for, the data's own, else a tenth of train.

        That tenth is the tail of train where the data are in random order, else of `train_shuffled`.
        """
        if splits.validation is not None:
            return splits.train, splits.validation
        pieces = self.pieces(splits.train, "train")
        if "validation" in self.examples and not any(name == "validation" for name, _, _ in pieces):
            return splits.train, "validation"
        if len(pieces) > 1:
            raise UserError(2, f"config.data.splits.validation: needed, since train {splits.train!r} has several parts")
        name, start, stop = pieces[0]
        if not self.shuffled and not name.endswith(SHUFFLED):
            name = f"{name}{SHUFFLED}"
            if (start, stop) != (0, self.examples.get(name)):
                known = [split for split in self.examples if split.endswith(SHUFFLED)]
                raise UserError(
                    2,
                    f"config.data.splits.validation: needed, since {self.name} is in no random order; for a random one "
                    f"take parts of {', '.join(known)} for both",
                )
        cut = stop - max(1, (stop - start) // 10)
        if cut == start:
            raise UserError(
                2, f"config.data.splits.train: {splits.train!r} has one example; none is left for validation"
            )
        return f"{name}[{start}:{cut}]", f"{name}[{cut}:{stop}]"


SHUFFLED = "_shuffled"  # what a split is called by that is read in an order of ours


def with_shuffled_train(dataset):
    """The data set with a split more, train_shuffled: train in a random order, the same in every run."""
    n = dataset.examples["train"]
    name = f"train{SHUFFLED}"

    def reordered():  # only here, since a fingerprint may read all of the data
        known = dataset.fingerprint("train") if dataset.fingerprint else (dataset.name, n)
        seed = int(hashlib.sha256(repr(known).encode()).hexdigest()[:8], 16)
        return Reordered(dataset.open("train"), generator(seed, "carve").permutation(n))

    return dataclasses.replace(
        dataset,
        examples={**dataset.examples, name: n},
        open=lambda split: reordered() if split == name else dataset.open(split),
        fingerprint=dataset.fingerprint
        and (lambda split: f"{dataset.fingerprint('train')}-shuffled" if split == name else dataset.fingerprint(split)),
    )


class Reordered:
    """A source in another order; `record` tells the numbers that its examples have in the source itself."""

    def __init__(self, source, order):
        self.source, self.order = source, order
        if hasattr(source, "stacked"):
            self.stacked = lambda records: source.stacked(order[records])
        if hasattr(source, "__getitems__"):
            self.__getitems__ = lambda records: source.__getitems__([int(order[i]) for i in records])

    def __len__(self):
        return len(self.order)

    def __getitem__(self, i):
        return self.source[int(self.order[i])]

    def record(self, examples):
        return self.order[examples]

    @property
    def notes(self):
        return getattr(self.source, "notes", {})


def data_folders():
    """Where data sets are looked for: TFDS_DATA_DIR, then TFDS's default folder, into which they are prepared."""
    default = pathlib.Path.home() / "tensorflow_datasets"
    named = os.environ.get("TFDS_DATA_DIR")
    return [pathlib.Path(named), default] if named else [default]


def find(name):
    """The folder of the newest version of a prepared TFDS data set, or None."""
    for folder in data_folders():
        # By number: a folder that is still being written has another name.
        found = [path.parent for path in (folder / name).glob("*.*.*/dataset_info.json")]
        versions = [path for path in found if all(part.isdigit() for part in path.name.split("."))]
        if versions:
            return max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
    return None


def changed(raw, field, change, name):
    """A data set with a field of bytes changed: bytes -> bytes; `name` tells the change apart from others."""

    class Changed:
        def __init__(self, source):
            self.source = source

        def __len__(self):
            return len(self.source)

        def __getitems__(self, records):
            return [{**e, field: change(e[field])} for e in self.source.__getitems__(records)]

    return dataclasses.replace(
        raw,
        open=lambda split: Changed(raw.open(split)),
        fingerprint=lambda split: f"{raw.fingerprint(split)}-{name}",
    )


def from_tfds(name):
    """Opens a data set that TFDS, or experiments.prepare, has written as array_record.

    Args:
        name: TFDS's, with the config where it has one: mnist, glue/sst2.

    Raises:
        UserError: 3, where it is not found or damaged.
    """
    import tensorflow_datasets as tfds

    folder = find(name)
    if folder is None:
        looked = " and ".join(map(str, data_folders()))
        raise UserError(
            3,
            f"data set {name}: not found in {looked}; prepare it (python -m experiments.prepare {name}) "
            f"or set TFDS_DATA_DIR to the folder that holds it",
        )
    try:
        builder = tfds.builder_from_directory(folder)
        info = builder.info
        nested = ((), np.dtype(object))  # of records in a record, as the answers to a question
        features = {
            key: nested if isinstance(f.shape, dict) else (tuple(f.shape), np.dtype(f.np_dtype))
            for key, f in info.features.items()
        }
        examples = {key: split.num_examples for key, split in info.splits.items()}
    except Exception as error:  # whatever a damaged folder makes TFDS raise
        raise UserError(3, f"data set {name}: {folder} is damaged: {type(error).__name__}: {error}") from error
    label = next((info.features[name] for name in ("label", "tags") if name in features), None)
    label = getattr(label, "feature", label)  # of a sequence what each of its values is

    def open(split):
        try:
            return builder.as_data_source(split=split)
        except Exception as error:
            raise UserError(3, f"data set {name}, split {split}: {folder} is damaged: {error}") from error

    def fingerprint(split):
        digest = hashlib.sha256((folder / "features.json").read_bytes())
        for path in sorted(folder.glob(f"*-{split}.array_record-*")):
            try:
                digest.update(file_sum(path))
            except OSError as error:
                raise UserError(3, f"data set {name}, split {split}: {path}: {error.strerror}") from error
        return digest.hexdigest()

    classes = getattr(label, "num_classes", None)
    labels = tuple(label.names) if classes and label.names else ()
    own = {"shuffled": not info.disable_shuffling, "fingerprint": fingerprint}
    return Dataset(name, features, examples, open, classes, labels, **own)
