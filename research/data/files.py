"""A user's own text: pairs, a text a line, train.de beside train.en; and corpora, a document a file."""

import hashlib
import pathlib

import numpy as np

from research.data.cache import file_sum
from research.data.dataset import Dataset
from research.data.tokens import NOT_UTF8, count
from research.errors import UserError

SPLITS = ("train", "validation", "test")
BLOCK = 1 << 23  # characters of a document that are read at a time


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


class Documents:
    """Files of text, however long; their bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, paths):
        self.paths, self.bytes = paths, sum(path.stat().st_size for path in paths)

    def __len__(self):
        return len(self.paths)

    def documents(self, notes):
        """Each document, as an iterator of its blocks."""
        return (self._blocks(path, notes) for path in self.paths)

    def _blocks(self, path, notes):
        damaged = False
        try:
            with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                while block := file.read(BLOCK):
                    if "\0" in block:
                        raise UserError(3, f"{path}: is no text: there is a byte of 0 in it")
                    readable = block.encode(errors="surrogateescape").decode(errors="replace")
                    damaged |= readable != block
                    yield readable
        except OSError as error:
            raise UserError(3, f"{path}: cannot be read: {error.strerror}") from error
        count(notes, NOT_UTF8, damaged)


def corpus(folder):
    """The documents of a file or a folder: each file below it but hidden ones, in the order of their paths.

    A folder with folders or files named train (train, train.txt), and validation and test where it has them, is cut
    into splits so; of another all is train.

    Raises:
        UserError: 2 where it is not named, 3 where it is not there or holds no text.
    """
    if folder is None:
        raise UserError(2, "config.data.folder: needed: a text file, or a folder of them")
    root = pathlib.Path(folder)
    if not root.exists():
        raise UserError(3, f"config.data.folder: {root} is not there")
    parts = {path.stem: path for path in sorted(root.iterdir())} if root.is_dir() else {}
    splits = {split: parts[split] for split in SPLITS if split in parts} if "train" in parts else {"train": root}
    paths = {split: _files(path) for split, path in splits.items()}
    for split, files in paths.items():
        if not any(path.stat().st_size for path in files):
            raise UserError(3, f"config.data.folder: {splits[split]} holds no text")

    def fingerprint(split):
        names = [str(path.relative_to(root)) for path in paths[split]]
        return hashlib.sha256(
            repr([(name, _sum(path)) for name, path in zip(names, paths[split])]).encode()
        ).hexdigest()

    return Dataset(
        f"text/{root.resolve().name}",
        {"text": ((), np.dtype(object))},
        {split: len(files) for split, files in paths.items()},
        lambda split: Documents(paths[split]),
        fingerprint=fingerprint,
    )


def _files(path):
    if path.is_file():
        return [path]
    hidden = lambda found: any(part.startswith(".") for part in found.relative_to(path).parts)
    return [found for found in sorted(path.rglob("*")) if found.is_file() and not hidden(found)]


def _sum(path):
    try:
        return file_sum(path).hex()
    except OSError as error:
        raise UserError(3, f"{path}: cannot be read: {error.strerror}") from error
