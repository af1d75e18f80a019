"""Batches of a split by two roads, the same bit for bit: arrays in memory, or a stream that worker processes decode."""

import multiprocessing
import os
import pathlib
import shutil
import signal
import tempfile
from typing import Any, NamedTuple

import numpy as np

from research.data.order import share, step_examples
from research.errors import UserError


class Split(NamedTuple):
    """A split string, ready to be read."""

    dataset: Any  # Dataset
    text: str
    pieces: list  # [(base split, start, stop)]
    arrays: Any  # {base split: {field: array[n, ...]}}; None where the split streams
    sources: Any  # {base split: source} of a split that streams
    workers: int

    def __len__(self):
        return sum(stop - start for _, start, stop in self.pieces)


def open_split(dataset, text, role, memory_limit, workers):
    """A split of an opened data set; one that fits the limit is decoded now, and its labels checked.

    Raises:
        UserError: 2 for a split that is none, 3 for damaged or wrong examples.
    """
    pieces = dataset.pieces(text, role)
    bases = dict.fromkeys(base for base, _, _ in pieces)
    if sum(dataset.examples[base] * example_bytes(dataset) for base in bases) > memory_limit:
        return _streamed(dataset, text, pieces, workers)
    return Split(dataset, text, pieces, {base: decoded(dataset, base) for base in bases}, None, workers)


def _streamed(dataset, text, pieces, workers):
    sources = {base: dataset.open(base) for base in dict.fromkeys(base for base, _, _ in pieces)}
    return Split(dataset, text, pieces, None, sources, workers)


def example_bytes(dataset):
    """Bytes of one decoded example; infinite where a shape varies, since nothing bounds it."""
    if any(None in shape for shape, _ in dataset.features.values()):
        return float("inf")
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in dataset.features.values())


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


def train_batches(split, seed, batch_size, first, last, process=0, processes=1):
    """The batches of steps first ... last - 1: this process's rows of each, with a mask of ones."""
    steps = _Steps(split, seed, batch_size, last, process, processes)
    if split.arrays is not None:
        return (steps[step] for step in range(first, last))
    import grain

    stream = grain.MapDataset.source(steps)[first:]
    if not split.workers:
        return iter(stream.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))
    in_worker = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)  # one batch at a time a process
    options = grain.MultiprocessingOptions(num_workers=split.workers, per_worker_buffer_size=2)
    return iter(stream.to_iter_dataset(in_worker).mp_prefetch(options))


class _Steps:
    """Random access to the batches of a run by step, as Grain wants its source."""

    def __init__(self, split, seed, batch_size, steps, process, processes):
        self.split, self.seed, self.batch_size, self.steps = split, seed, batch_size, steps
        self.process, self.processes = process, processes

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        examples = step_examples(self.seed, step, self.batch_size, len(self.split))
        examples = share(examples, self.process, self.processes)
        return {**read(self.split, examples), "mask": np.ones(len(examples), np.float32)}

    def __getstate__(self):  # what a worker process gets: it opens the data set for itself
        return {**self.__dict__, "split": (self.split.dataset.origin, self.split.text, self.split.pieces)}

    def __setstate__(self, state):
        from research.data import open_dataset

        if multiprocessing.parent_process() is not None:  # Ctrl-C is for the run: its workers are ended by it
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.__dict__.update(state)
        origin, text, pieces = state["split"]
        self.split = _streamed(open_dataset(*origin), text, pieces, 0)


def eval_batches(split, batch_size, process=0, processes=1):
    """Each example once, in order; the last batch is padded and its padding masked: this process's rows of each."""
    n = len(split)
    for start in range(0, n, batch_size):
        examples = np.arange(start, start + batch_size)
        mine = share(examples, process, processes)
        batch = read(split, np.minimum(mine, n - 1))
        yield {**batch, "mask": (mine < n).astype(np.float32)}


def decoded(dataset, base):
    """All examples of one split as arrays, from the cache where it has them."""
    cache = _cache_folder(dataset, base)
    if cache and (cache / "complete").is_file():
        try:
            return {field: np.load(cache / f"{field}.npy", mmap_mode="r") for field in dataset.features}
        except (OSError, ValueError):  # damaged: decoded again
            shutil.rmtree(cache, ignore_errors=True)
    source, n = dataset.open(base), dataset.examples[base]
    chunks = [_read_records(dataset, source, base, range(i, min(i + 2048, n))) for i in range(0, n, 2048)]
    arrays = {field: np.concatenate([chunk[field] for chunk in chunks]) for field in chunks[0]}
    if cache:
        _store(cache, arrays)
    return arrays


def _read_records(dataset, source, base, records):
    try:
        if hasattr(source, "__getitems__"):
            examples = source.__getitems__([int(record) for record in records])
        else:
            examples = [source[int(record)] for record in records]
        batch = {}
        for field, (_, dtype) in dataset.features.items():
            batch[field] = np.stack([np.asarray(example[field]) for example in examples]).astype(dtype)
    except Exception as error:  # whatever a damaged shard makes its reader raise
        raise UserError(
            3,
            f"data set {dataset.name}, split {base}, records {records[0]} to {records[-1]}: cannot be "
            f"read: {type(error).__name__}: {error}",
        ) from error
    return _checked(dataset, base, records, batch)


def _checked(dataset, base, records, batch):
    if dataset.classes is not None and "label" in batch:
        wrong = np.flatnonzero((batch["label"] < 0) | (batch["label"] >= dataset.classes))
        if len(wrong):
            raise UserError(
                3,
                f"data set {dataset.name}, split {base}, record {records[wrong[0]]}: label "
                f"{batch['label'][wrong[0]]} is outside [0, {dataset.classes})",
            )
        batch["label"] = batch["label"].astype(np.int32)
    return batch


def cache_home():
    """$XDG_CACHE_HOME/research: decoded arrays and compiled programs; losing them costs time only."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "research"


def _cache_folder(dataset, base):
    if dataset.fingerprint is None:
        return None
    return cache_home() / "decoded" / f"{dataset.name.replace('/', '_')}-{base}-{dataset.fingerprint(base)[:24]}-v1"


def _store(cache, arrays):
    """Written beside and renamed, so that a reader never sees half of it; a cache that cannot be written is none."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        scratch = pathlib.Path(tempfile.mkdtemp(prefix=f"{cache.name}.", dir=cache.parent))
    except OSError:
        return
    try:
        for field, array in arrays.items():
            np.save(scratch / f"{field}.npy", array)
        (scratch / "complete").touch()
        os.rename(scratch, cache)
    except OSError:  # disk full, or another process was first
        shutil.rmtree(scratch, ignore_errors=True)
