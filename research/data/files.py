"""Reads a user's own text: pairs, one text per line, in files such as train.de and train.en; corpora, one document per
file."""

import functools
import hashlib
import pathlib

import numpy as np

from research.data.cache import file_sum
from research.data.dataset import Dataset
from research.data.reading import read_blocks, read_lines
from research.errors import UserError

NAMES = {  # {split: names of its files and folders}
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
BLANKS = " \t\n\r\v\f"
SHOWN = 8  # unused files listed in a note


class Lines:
    """The lines of files side by side: source[i] -> {suffix: bytes}."""

    def __init__(self, columns):
        self.columns = columns  # {suffix: [bytes]}

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitems__(self, records):
        return [{suffix: lines[i] for suffix, lines in self.columns.items()} for i in records]


def from_files(folder, suffixes):
    """Opens a folder with files train.<suffix> for both suffixes and, optionally, files for validation and test.

    Raises:
        UserError: 2 if no folder is named; 3 if train is missing, two files claim one split, the sides of a split
            differ in length, or a file cannot be read.
    """
    if folder is None:
        raise UserError(2, f"config.data.folder: needed: it holds train.{suffixes[0]} and train.{suffixes[1]}")
    root = pathlib.Path(folder)
    sides = {}
    for path in _entries(root):
        for suffix in suffixes:
            if path.name.endswith(f".{suffix}"):
                sides.setdefault(path.name.removesuffix(f".{suffix}"), path)
    found = _by_split(list(sides.items()), root)
    names = {split: name for split, (name, _) in found.items()} or {"train": "train"}
    paths = {split: {suffix: root / f"{name}.{suffix}" for suffix in suffixes} for split, name in names.items()}
    columns = {
        split: {s: [line.strip(BLANKS).encode() for line in read_lines(path)] for s, path in files.items()}
        for split, files in paths.items()
    }
    for split, found in columns.items():
        (one, first), (other, second) = found.items()
        if len(first) != len(second):
            lengths = f"{paths[split][one]} has {len(first)} lines, {paths[split][other]} has {len(second)}"
            raise UserError(3, f"{lengths}: they are no pairs")
        if not first:
            raise UserError(3, f"{paths[split][one]}: holds no text")

    @functools.cache
    def fingerprint(split):
        return hashlib.sha256(repr(columns[split]).encode()).hexdigest()

    return Dataset(
        f"parallel/{root.name}",
        {suffix: ((), np.dtype(object)) for suffix in suffixes},
        {split: len(found[suffixes[0]]) for split, found in columns.items()},
        lambda split: Lines(columns[split]),
        fingerprint=fingerprint,
        notes=_unused(root, [path for files in paths.values() for path in files.values()]),
    )


def _entries(root):
    """Lists a folder, sorted and without hidden files; returns an empty list for any other path."""
    return [path for path in sorted(root.iterdir()) if not path.name.startswith(".")] if root.is_dir() else []


def _by_split(named, root):
    """Assigns files to splits by their names.

    Args:
        named: [(name, path)].

    Returns:
        {split: (name, path)}; {} if none is named train.

    Raises:
        UserError: 3, if two have names of the same split.
    """
    if not any(name in NAMES["train"] for name, _ in named):
        return {}
    found = {}
    for name, path in named:
        split = next((split for split, names in NAMES.items() if name in names), None)
        if split in found:
            both = f"{found[split][1].name} and {path.name}"
            raise UserError(3, f"config.data.folder: {root}: {both} both claim to be {split}; remove one of them")
        if split is not None:
            found[split] = name, path
    return {split: found[split] for split in NAMES if split in found}


def _unused(root, used):
    """Returns a note that lists the files of a folder that are not in `used`; () if there are none."""
    names = [path.name for path in _entries(root) if path not in used]
    if not names:
        return ()
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (f"{root}: unused files: {', '.join(names[:SHOWN])}{more}",)


class Documents:
    """Text files of any length, one document each."""

    def __init__(self, paths):
        self.paths, self.bytes = paths, sum(path.stat().st_size for path in paths)

    def __len__(self):
        return len(self.paths)

    def documents(self):
        """Returns an iterator over the documents, each an iterator over its blocks."""
        return map(read_blocks, self.paths)


def corpus(folder):
    """Opens a file, or all files below a folder except hidden ones, as documents in the order of their paths.

    If the folder contains a file or folder named train (train, train.txt), its splits are the files and folders named
    as in NAMES. Otherwise all files belong to train.

    Raises:
        UserError: 2 if no folder is named; 3 if it does not exist, holds no text, or two files claim one split.
    """
    if folder is None:
        raise UserError(2, "config.data.folder: needed: a text file, or a folder of them")
    root = pathlib.Path(folder)
    if not root.exists():
        raise UserError(3, f"config.data.folder: {root} does not exist")
    named = [(path.name if path.is_dir() else path.stem, path) for path in _entries(root)]
    splits = {split: path for split, (_, path) in _by_split(named, root).items()}
    notes = _unused(root, splits.values()) if splits else ()
    others = [path.name for name, path in named if name in NAMES["validation"] + NAMES["test"]]
    if not splits and others:
        notes = (f"{root}: no file or folder is named train, so all files belong to train, also {', '.join(others)}",)
    splits = splits or {"train": root}
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
        notes=notes,
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
