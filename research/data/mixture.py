"""Several data sets as one: which of them an example is out of is drawn by chance, at the rates that are wanted."""

import inspect
import re
from types import SimpleNamespace

import numpy as np

from research.data.batches import example_bytes, longest, open_split, read
from research.data.choose_tokenizer import digest, shared_tokenizer, source_of
from research.data.dataset import Dataset
from research.data.text import buckets_to
from research.data.tokenize import Tokenizer
from research.data.tokens import count
from research.errors import UserError, pick
from research.randomness import generator

SHARED = ("tokens", "types")  # fields that all parts have in common; others stand under their part's name
ALL = 2**62  # bytes
FORMAT = "mixture-v1"  # of what is kept: which example stands where


def mixture(
    *,
    parts: tuple[str, ...] = (),
    rates: tuple[float, ...] = (),
    train: tuple[str, ...] = (),
    validation: tuple[str, ...] = (),
    test: tuple[str, ...] = (),
    tokenizer: str = "bert",
    vocabulary_size: int = 8000,
    min_count: int = 1,
    normalize: tuple[str, ...] = (),
    max_len: int = 128,
    buckets: tuple[int, ...] = (),
):
    """Data sets of text read by turns, in an order that follows from seed and step, for one model with a head a task.

    Examples: tokens int32[max_len], and types where a part has them; part int32, the number of the part; and what else
    the parts have, as PART_FIELD, zeros in an example of another part. An epoch of train holds each example of the part
    that is read the most often for its size once at least, and of the others as many as the rates want: some once more
    than others of their part. Of validation and test each example of each part is there once.

    Args:
        parts: names of data sets; of questions a window begins a third of max_len behind the one before, and a
            question is cut at a sixth, which is BERT's choice for 384.
        rates: shares of their examples in train, if not as their sizes are.
        train, validation, test: a split string of each part, none for none; if not given, a part's own, validation
            carved from its train as for a single data set.
        tokenizer: shared by all; trained on the train splits of all, if it is a kind.

    Raises:
        UserError: 2.
    """
    given = {"train": train, "validation": validation, "test": test}
    names = _names(parts, rates, given)
    own = {"vocabulary_size": vocabulary_size, "min_count": min_count, "normalize": normalize, **lengths(max_len)}
    found = dict(zip(names, _opened(parts, own, tokenizer)))
    chosen = {name: _splits(part, *(given[role][i] if given[role] else None for role in given))
              for i, (name, part) in enumerate(found.items())}  # fmt: skip
    counts = {role: [part.count(chosen[name][role], f"config.data.{role}: {name}") if chosen[name][role] else 0
                     for name, part in found.items()] for role in given}  # fmt: skip
    sizes = {role: _sizes(own, rates if role == "train" else ()) for role, own in counts.items() if sum(own)}
    if not all(counts["train"]):
        raise UserError(2, f"config.data.train: {train}: each part has some")
    if "validation" not in sizes:  # out of train it would be examples that are trained on, where rates repeat some
        raise UserError(2, f"config.data.validation: {validation}: some part has one")

    shared = next(iter(found.values())).tokenizer
    features, beside, moving, places = {"part": ((), np.dtype("int32"))}, set(), [], []
    for name, part in found.items():
        features |= {_field(name, field): own for field, own in part.features.items()}
        beside |= {_field(name, field) for field in part.beside}
        moving += [_field(name, field) for field in part.augmented.get("tokens", ())]
        places += [_field(name, field) for field in part.places]
    known = lambda role: [
        (name, text, text and [part.fingerprint(base) for base, _, _ in part.pieces(text)])
        for name, part in found.items() for text in [chosen[name][role]]
    ]  # fmt: skip
    return Dataset(
        "mixture",
        features,
        {role: int(own.sum()) for role, own in sizes.items()},
        lambda role, memory_limit=0: Mixed(features, _splits_of(found, chosen, role, memory_limit), sizes[role]),
        shuffled=True,
        tokenizer=shared,
        sequences=("tokens",),
        beside=tuple(sorted(beside)),
        augmented={"tokens": tuple(dict.fromkeys(moving))},
        places=tuple(places),
        buckets=buckets_to(buckets, max_len),
        fingerprint=lambda role: digest(FORMAT, known(role), sizes[role].tolist(), max_len),
        parts=found,
    )


def _names(parts, rates, given):
    """What the fields of the parts begin with; or the error of arguments that do not go together."""
    names = [re.sub(r"\W", "_", part) for part in parts]
    alike = [name for name in names for other in names if f"{name}_".startswith(f"{other}_")]
    if not parts or len(alike) > len(names):  # a name stands before those of fields and metrics
        raise UserError(2, f"config.data.parts: {', '.join(parts) or 'none'}; names of data sets are wanted, each once")
    for name, values in ("rates", rates), *given.items():
        if values and len(values) != len(parts):
            raise UserError(2, f"config.data.{name}: {len(values)} for the {len(parts)} parts of config.data.parts")
    if any(not 0 < rate < np.inf for rate in rates):
        raise UserError(2, f"config.data.rates: {rates}: each is more than 0")
    return names


def _field(part, field):
    """What a field of a part is called."""
    return field if field in SHARED else f"{part}_{field}"


def lengths(max_len):
    """The arguments of a part that follow from the length of all."""
    return {"max_len": max_len, "stride": max_len // 3, "question_len": max_len // 6}


def _opened(parts, own, tokenizer):
    """The parts as Datasets, with one tokenizer."""
    from research.data import DATASETS, open_dataset

    builders, arguments = [pick(DATASETS, part, "config.data.parts") for part in parts], []
    for part, builder in zip(parts, builders):
        taken = inspect.signature(builder).parameters
        if not {"tokenizer", "max_len"} <= set(taken):
            raise UserError(2, f"config.data.parts: {part} is no data set of texts that are cut to max_len")
        arguments.append({name: value for name, value in own.items() if name in taken})
    if not isinstance(tokenizer, Tokenizer):
        sources = [source_of(builder, given) for builder, given in zip(builders, arguments)]
        trained = [own[name] for name in ("vocabulary_size", "min_count", "normalize")]
        tokenizer = shared_tokenizer(tokenizer, sources, *trained)
    return [open_dataset(part, {**given, "tokenizer": tokenizer}) for part, given in zip(parts, arguments)]


def _splits(dataset, train, validation, test):
    """The split strings of a part, {role: text or None}; None for those that are not given."""
    test = test or ("test" if "test" in dataset.examples else None)
    asked = {"train": train or "train", "validation": validation}
    if validation is None:
        asked["train"], asked["validation"] = dataset.carve(SimpleNamespace(**asked))
    return {role: None if text == "none" else text for role, text in {**asked, "test": test}.items()}


def _sizes(counts, rates):
    """How many examples of each part an epoch has, int[parts], by the rates: each example once at least.

    Args:
        counts: how many there are.
    """
    if not len(rates):
        return np.array(counts)
    shares = np.array(rates) / sum(rates)
    total = int(np.ceil((np.array(counts) / shares).max() - 1e-9))
    return np.maximum(np.round(shares * total).astype(int), counts)


def _splits_of(parts, chosen, role, memory_limit):
    """Opens the splits of all parts for a role: in memory if they fit the limit together, otherwise streamed.

    Returns:
        {part: Split}; None for a part without one.
    """
    texts = {name: chosen[name][role] for name in parts}
    pieces = [(part, {base for base, _, _ in part.pieces(texts[name])}) for name, part in parts.items() if texts[name]]
    size = sum(part.examples[base] * example_bytes(part) for part, bases in pieces for base in bases)
    limit = ALL if size <= memory_limit else 0
    opened = lambda name, part: open_split(part, texts[name], f"config.data.{role}: {name}", limit, 0)
    return {name: opened(name, part) if texts[name] else None for name, part in parts.items()}


class Mixed:
    """Source of the examples of a role: stores the part and record of each, and gathers a batch when it is read.

    Args:
        features: the mixture's.
        splits: {part: Split} for all parts in order; None for a part without one.
        sizes: int[parts], the number of examples per part.
    """

    def __init__(self, features, splits, sizes):
        self.features, self.splits = features, splits
        part = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        record = np.concatenate(
            [np.arange(size, dtype=np.int32) % max(1, len(split or ())) for split, size in zip(splits.values(), sizes)]
        )
        if (sizes > 0).sum() > 1:  # mix the parts; a single part keeps its order
            order = generator(0, "mixture").permutation(len(part))
            part, record = part[order], record[order]
        self.part, self.records = part, record

    def __len__(self):
        return len(self.part)

    @property
    def at_hand(self):
        """Whether no part streams."""
        return all(split.at_hand for split in self.splits.values() if split)

    @property
    def notes(self):
        """{what happened to examples of a part: how many}."""
        notes = {}
        for name, split in self.splits.items():
            for found in split.counts().values() if split else ():
                for what, n in found.items():
                    count(notes, f"{what} (of {name})", n)
        return notes

    def __getitem__(self, record):
        return {field: array[0] for field, array in self.stacked(np.array([record])).items()}

    def stacked(self, records):
        """Returns the examples with these numbers. Fields of other parts are zero."""
        found = {field: np.zeros((len(records), *shape), dtype) for field, (shape, dtype) in self.features.items()}
        found["part"] = self.part[records]
        for here, name, own in self._of_parts(records):
            for field, x in read(self.splits[name], own).items():
                found[_field(name, field)][here] = x
        return found

    def longest(self):
        """Returns int[n], the number of tokens of each example without padding."""
        found, records = np.zeros(len(self), np.int64), np.arange(len(self))
        for here, name, own in self._of_parts(records):
            split = self.splits[name]
            found[here] = longest(split.dataset, split.pieces, split.arrays)[own]
        return found

    def _of_parts(self, records):
        """Yields, for each part with some of the records: bool[n], which ones; its name; their numbers in the part."""
        for number, name in enumerate(self.splits):
            here = self.part[records] == number
            if here.any():
                yield here, name, self.records[records[here]]
