"""A user's own parallel text: plain files in a folder, a text a line, train.de beside train.en."""

import hashlib
import pathlib

import numpy as np

from research.data.dataset import Dataset
from research.errors import UserError

SPLITS = ("train", "validation", "test")


class Lines:
    """The lines of files side by side: source[i] -> {suffix: bytes}."""

    def __init__(self, columns):
        self.columns = columns  # {suffix: [bytes]}

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitems__(self, records):
        return [{suffix: lines[i] for suffix, lines in self.columns.items()} for i in records]


def from_files(folder, suffixes):
    """The splits of a folder that has train.<suffix>, and validation and test where it has them, for both suffixes.

    Raises:
        UserError: 2 where the folder is not named, 3 where train is missing or the sides of a split differ in length.
    """
    if folder is None:
        raise UserError(2, f"config.data.folder: needed: it holds train.{suffixes[0]} and train.{suffixes[1]}")
    paths = {split: {s: pathlib.Path(folder) / f"{split}.{s}" for s in suffixes} for split in SPLITS}
    there = lambda files: any(path.is_file() for path in files.values())
    paths = {split: files for split, files in paths.items() if split == "train" or there(files)}
    columns = {split: {suffix: _lines(path) for suffix, path in files.items()} for split, files in paths.items()}
    for split, sides in columns.items():
        (one, first), (other, second) = sides.items()
        if len(first) != len(second):
            found = f"{paths[split][one]} has {len(first)} lines, {paths[split][other]} has {len(second)}"
            raise UserError(3, f"{found}: they are no pairs")
        if not first:
            raise UserError(3, f"{paths[split][one]}: holds no text")
    features = {suffix: ((), np.dtype(object)) for suffix in suffixes}
    sizes = {split: len(sides[suffixes[0]]) for split, sides in columns.items()}

    def fingerprint(split):
        return hashlib.sha256(repr(columns[split]).encode()).hexdigest()

    return Dataset(
        f"parallel/{pathlib.Path(folder).name}",
        features,
        sizes,
        lambda split: Lines(columns[split]),
        fingerprint=fingerprint,
    )


def _lines(path):
    try:
        return [line.strip() for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise UserError(3, f"{path}: cannot be read: {error.strerror}") from error
