"""Batches of a split by two roads, the same bit for bit: arrays in memory, or a stream that worker processes decode."""

import gc
import logging
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import threading
from typing import Any, NamedTuple

import numpy as np

from research.data.cache import cached
from research.data.dataset import UNTAGGED
from research.data.order import Lengths, share, step_examples
from research.errors import UserError
from research.stderr import warn

RESTARTS = 3  # of the data workers, per process


class Split(NamedTuple):
    """A split string, ready to be read."""

    dataset: Any  # Dataset
    text: str
    pieces: list  # [(base split, start, stop)]
    arrays: Any  # {base split: {field: array[n, ...]}}; None where it streams, is mapped or a mixture
    sources: Any  # {base split: source} of such a one
    workers: int
    lengths: Lengths | None = None  # of token sequences that are cut to buckets
    kept: Any = None  # {base split: {what befell its examples as they were decoded: how many}}; else the sources know

    def __len__(self):
        return sum(stop - start for _, start, stop in self.pieces)

    @property
    def at_hand(self):
        """Whether its examples are read at once, from memory or memory maps; else they stream."""
        if self.arrays is not None or self.dataset.mapped:
            return True
        return all(getattr(source, "at_hand", False) for source in self.sources.values())

    def notes(self):
        """Returns lines for the log on the examples that this process has read so far, such as how many were cut."""
        name, found = self.dataset.name, self.counts()
        return [f"{name}, split {base}: {n} {what}" for base, notes in found.items() for what, n in notes.items()]

    def counts(self):
        """Returns {base split: {what happened to examples: how many}}."""
        return self.kept or {base: getattr(source, "notes", {}) for base, source in (self.sources or {}).items()}


def open_split(dataset, text, role, memory_limit, workers):
    """A split of an opened data set; one that fits the limit, and is not mapped, is decoded now, its labels checked.

    Raises:
        UserError: 2 for a split that is none, 3 for damaged or wrong examples.
    """
    pieces = dataset.pieces(text, role)
    bases = dict.fromkeys(base for base, _, _ in pieces)
    if dataset.mapped:
        return _streamed(dataset, text, pieces, 0)
    if dataset.parts:
        return _of_parts(dataset, text, pieces, memory_limit, workers)
    if sum(dataset.examples[base] * example_bytes(dataset) for base in bases) > memory_limit:
        if dataset.buckets:
            raise _too_large(dataset, memory_limit)
        return _streamed(dataset, text, pieces, workers)
    found = {base: decoded(dataset, base) for base in bases}
    arrays = {base: arrays for base, (arrays, _) in found.items()}
    kept = {base: notes for base, (_, notes) in found.items()}
    lengths = _lengths(dataset, longest(dataset, pieces, arrays)) if dataset.buckets else None
    return Split(dataset, text, pieces, arrays, None, workers, lengths, kept)


def _of_parts(dataset, text, pieces, memory_limit, workers):
    """Opens a split of a mixture. Its parts are held in memory if they fit the limit, each example once."""
    sources = {base: dataset.open(base, memory_limit) for base in dict.fromkeys(base for base, _, _ in pieces)}
    if not dataset.buckets:
        return Split(dataset, text, pieces, None, sources, workers)
    if not all(source.at_hand for source in sources.values()):
        raise _too_large(dataset, memory_limit)
    tokens = {base: source.longest() for base, source in sources.items()}
    lengths = _lengths(dataset, np.concatenate([tokens[base][start:stop] for base, start, stop in pieces]))
    return Split(dataset, text, pieces, None, sources, workers, lengths)


def _too_large(dataset, memory_limit):
    limit = f"config.data.memory_limit_bytes {memory_limit}"
    return UserError(2, f"config.data.buckets: {dataset.name} does not fit {limit}")


def longest(dataset, pieces, arrays):
    """Returns int[n], the number of tokens without padding in the longest field of each example, from memory."""
    counts = lambda arrays: [(arrays[field] != dataset.pad).sum(axis=1) for field in dataset.sequences]
    found = {base: np.max(counts(own), axis=0) for base, own in arrays.items()}
    return np.concatenate([found[base][start:stop] for base, start, stop in pieces])


def _lengths(dataset, tokens):
    return Lengths(np.searchsorted(dataset.buckets, tokens))


def _streamed(dataset, text, pieces, workers):
    sources = {base: dataset.open(base) for base in dict.fromkeys(base for base, _, _ in pieces)}
    return Split(dataset, text, pieces, None, sources, workers)


def example_bytes(dataset):
    """Bytes of one decoded example; infinite where a shape varies, since nothing bounds it."""
    if any(None in shape for shape, _ in dataset.features.values()):
        return float("inf")
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in dataset.features.values())


def labels(split):
    """The labels of a split in memory, int[n]; None of one that has none, or streams."""
    if split.arrays is None or "label" not in split.dataset.features:
        return None
    return np.concatenate([split.arrays[base]["label"][start:stop] for base, start, stop in split.pieces])


def absent_parts(split):
    """Returns the names of the parts of a mixture that have no example in a split; [] for any other data set."""
    there = {number for base, start, stop in split.pieces if split.dataset.parts
             for number in np.unique(split.sources[base].part[start:stop])}  # fmt: skip
    return [name for number, name in enumerate(split.dataset.parts) if number not in there]


def read(split, examples):
    """The examples of these numbers, stacked: {field: array[B, ...]}."""
    examples = np.asarray(examples)
    parts, start = [], 0
    for base, low, high in split.pieces:
        inside = (examples >= start) & (examples < start + high - low)
        records = examples[inside] - start + low
        if len(records):
            if split.arrays is None:
                parts.append((inside, _read_records(split.dataset, split.sources[base], base, records)))
            else:
                parts.append((inside, {field: array[records] for field, array in split.arrays[base].items()}))
        start += high - low
    if len(parts) == 1:
        return parts[0][1]
    batch = {field: np.empty((len(examples), *value.shape[1:]), value.dtype) for field, value in parts[0][1].items()}
    for inside, part in parts:
        for field, value in part.items():
            batch[field][inside] = value
    return batch


def read_batch(split, examples, process=0, processes=1):
    """This process's rows of a global batch, its tokens cut to the bucket that the longest of them all needs."""
    batch = read(split, share(examples, process, processes))
    if split.lengths is None:
        return batch
    length = split.dataset.buckets[split.lengths.bucket[examples].max()]
    by_token = (*split.dataset.sequences, *split.dataset.beside)
    return {field: x[:, :length] if field in by_token else x for field, x in batch.items()}


def stack(batches, k, pad):
    """[k, B, ...], tokens padded to the longest; what is missing to k is never looked at."""
    batches = batches + batches[-1:] * (k - len(batches))

    def join(arrays):
        if len({array.shape for array in arrays}) == 1:
            return np.stack(arrays)
        longest = max(array.shape[1] for array in arrays)
        rest = [(0, 0)] * (arrays[0].ndim - 2)
        wide = lambda x: np.pad(x, [(0, 0), (0, longest - x.shape[1]), *rest], constant_values=pad)
        return np.stack([wide(array) for array in arrays])

    return {field: join([batch[field] for batch in batches]) for field in batches[0]}


def train_batches(split, seed, batch_size, first, last, process=0, processes=1):
    """The batches of steps first ... last - 1: this process's rows of each, with a mask of ones."""
    steps = _Steps(split, seed, batch_size, last, process, processes)
    if split.at_hand:
        return (steps[step] for step in range(first, last))
    import grain

    stream = grain.MapDataset.source(steps)[first:]
    if not split.workers:
        return iter(stream.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))
    # An older stream's semaphores, freed just while Python starts a worker, are an error there (CPython gh-109629).
    gc.collect()
    in_worker = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)  # one batch at a time a process
    options = grain.MultiprocessingOptions(num_workers=split.workers, per_worker_buffer_size=2)
    return iter(stream.to_iter_dataset(in_worker).mp_prefetch(options))


def _steady(split, seed, batch_size, first, last, *processes):
    """Yields the batches of `train_batches`. If a data worker dies, for example of a lack of memory, restarts them all.

    Raises:
        UserError: 3, if a worker dies after RESTARTS restarts.
    """
    step, deaths = first, 0
    while True:
        try:
            for batch in train_batches(split, seed, batch_size, step, last, *processes):
                yield batch
                step += 1
            return
        except RuntimeError as error:  # Grain's only one
            code = re.search(r"Worker process was terminated unexpectedly with exit code (-?\d+)", str(error))
            if code is None:
                raise
            code, deaths = int(code[1]), deaths + 1
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            what = f"data set {split.dataset.name}, split {split.text}, step {step}: a data worker {how}"
            if deaths > RESTARTS:
                remedy = "if memory is short, give a lower config.data.workers"
                raise UserError(3, f"{what} after {RESTARTS} restarts; {remedy}") from error
            warn(f"{what}; restarting the workers")


def make_next_batch(split, k, stacked, *own):
    """next_batch(most) -> steps of the next dispatch, at most k and so many, and its batch; [k, B, ...] if stacked.

    Args:
        own: of train_batches, behind the split.
    """
    batches = _steady(split, *own)

    def next_batch(most):
        count = min(k, most)
        if not stacked:
            return count, next(batches)
        return count, stack([next(batches) for _ in range(count)], k, split.dataset.pad)

    return next_batch


class _Steps:
    """Random access to the batches of a run by step, as Grain wants its source."""

    def __init__(self, split, seed, batch_size, steps, process, processes):
        self.split, self.seed, self.batch_size, self.steps = split, seed, batch_size, steps
        self.process, self.processes = process, processes

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        examples = step_examples(self.seed, step, self.batch_size, len(self.split), self.split.lengths)
        batch = read_batch(self.split, examples, self.process, self.processes)
        return {**batch, "mask": np.ones(len(examples) // self.processes, np.float32)}

    def __getstate__(self):  # what a worker process gets: it opens the data set for itself
        return {**self.__dict__, "split": (self.split.dataset.origin, self.split.text, self.split.pieces)}

    def __setstate__(self, state):
        from research.data import open_dataset

        if multiprocessing.parent_process() is not None:  # Ctrl-C is for the run: its workers are ended by it
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            threading.Thread(target=_end_with_parent, daemon=True).start()
            logging.getLogger("absl").setLevel(logging.ERROR)  # as in the training process
        self.__dict__.update(state)
        origin, text, pieces = state["split"]
        self.split = _streamed(open_dataset(*origin), text, pieces, 0)


def _end_with_parent():
    """Ends this data worker when the training process has ended, even if it was killed."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def eval_batches(split, batch_size, process=0, processes=1):
    """Each example once, in order (of their buckets, where there are any): this process's rows of each batch, and their
    numbers in the split, int32[B]. The last batch is padded and its padding masked."""
    n = len(split)
    order = np.arange(n) if split.lengths is None else np.argsort(split.lengths.bucket, kind="stable")
    for start in range(0, n, batch_size):
        places = np.arange(start, start + batch_size)
        examples = order[np.minimum(places, n - 1)]
        mask = (share(places, process, processes) < n).astype(np.float32)
        batch = {**read_batch(split, examples, process, processes), "mask": mask}
        yield share(examples, process, processes).astype(np.int32), batch


def decoded(dataset, base):
    """All examples of one split as arrays, and what befell them on the way; from the cache where it has them."""

    def make():
        source, n = dataset.open(base), dataset.examples[base]
        chunks = [_read_records(dataset, source, base, np.arange(i, min(i + 2048, n))) for i in range(0, n, 2048)]
        arrays = {field: np.concatenate([chunk[field] for chunk in chunks]) for field in chunks[0]}
        return arrays, dict(getattr(source, "notes", {}))

    if dataset.fingerprint is None:
        return make()
    return cached(f"{dataset.name}-{base}-{dataset.fingerprint(base)[:24]}-v2", make)


def _read_records(dataset, source, base, records):
    numbers = source.record(records) if hasattr(source, "record") else records  # as errors name them
    try:
        if hasattr(source, "stacked"):
            batch = source.stacked(records)
            for field in dataset.features:
                _as_declared(dataset, base, field, batch[field][0], numbers[0])
            # Ids of a tokenizer's own are in its vocabulary, and their file has a check sum.
            return batch if dataset.mapped else _checked(dataset, base, numbers, batch)
        if hasattr(source, "__getitems__"):
            examples = source.__getitems__([int(record) for record in records])
        else:
            examples = [source[int(record)] for record in records]
        batch = {}
        for field in dataset.features:
            values = [_as_declared(dataset, base, field, e[field], r) for e, r in zip(examples, numbers)]
            batch[field] = np.stack(values)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged shard makes its reader raise
        raise UserError(
            3,
            f"data set {dataset.name}, split {base}, records {min(numbers)} to {max(numbers)}: cannot be "
            f"read: {type(error).__name__}: {error}",
        ) from error
    return _checked(dataset, base, numbers, batch)


def _as_declared(dataset, base, field, value, record):
    """A field of an example as an array of the shape and dtype that the data set declares; never cast but from a
    Python number, and from a scalar of another width that holds it.

    Raises:
        UserError: 3.
    """
    shape, dtype = dataset.features[field]
    array = np.asarray(value)
    fits = array.ndim == len(shape) and all(d in (None, n) for n, d in zip(array.shape, shape))
    if array.dtype != dtype and (array.ndim == 0 or not isinstance(value, np.ndarray)):
        kinds = {"b": "b", "i": "iu", "u": "iu", "f": "f"}.get(np.dtype(dtype).kind, "")
        if array.dtype.kind in kinds:
            cast = array.astype(dtype)
            array = cast if array.dtype.kind == "f" or np.array_equal(cast, array) else array
    if array.dtype == dtype and fits:
        return array
    declared = f"{np.dtype(dtype).name}{list(shape)}"
    raise UserError(
        3,
        f"data set {dataset.name}, split {base}, record {record}: {field} is {array.dtype.name}{list(array.shape)}, "
        f"but declared as {declared}; declare what it is, or convert it where it is read",
    )


def _checked(dataset, base, records, batch):
    """Labels and tags are classes, and tokens are in the vocabulary."""
    bounds = {"label": dataset.classes, "tags": dataset.classes, **dict.fromkeys(dataset.sequences, dataset.vocabulary)}
    for field, bound in bounds.items():
        if field not in batch or bound is None:
            continue
        values = batch[field].reshape(len(records), -1)
        right = (values >= 0) & (values < bound)
        if field in dataset.sequences:
            right |= values == dataset.pad  # which may be no token's id
        if field == "tags":
            right |= values == UNTAGGED
        wrong = np.argwhere(~right)
        if len(wrong):
            row, place = wrong[0]
            what = {"label": "label", "tags": "tag"}.get(field, f"token id in {field}")
            raise UserError(
                3,
                f"data set {dataset.name}, split {base}, record {records[row]}: {what} "
                f"{values[row, place]} is outside [0, {bound})",
            )
        batch[field] = batch[field].astype(np.int32)
    return batch
