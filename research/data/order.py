"""Which examples a step reads: a function of (seed, step), so that nothing has to be restored."""

import dataclasses
from functools import lru_cache

import numpy as np

from research.randomness import generator


@dataclasses.dataclass(frozen=True, eq=False)  # known by its identity, so that an order can be kept for it
class Lengths:
    """Of sequences of several lengths: which bucket each example needs."""

    bucket: np.ndarray  # int[n]


def permutation(seed, epoch, n):
    """The order of one epoch: int64[n], each example once."""
    return _permutations(seed, n)(epoch)


@lru_cache(maxsize=16)  # seeds: members of a population take turns
def _permutations(seed, n):
    # A batch touches two epochs at most, but where it is larger than an epoch.
    return lru_cache(maxsize=2)(lambda epoch: generator(seed, "order", epoch).permutation(n))


@lru_cache(maxsize=2)
def permutation_by_length(seed, epoch, batch_size, lengths):
    """The same, so that a batch that lies in one epoch has examples of one bucket, but where a bucket ends.

    Examples of a bucket meet in the order of `permutation`; the batches are then shuffled.
    """
    n = len(lengths.bucket)
    order = permutation(seed, epoch, n)
    head = -epoch * n % batch_size  # what the last epoch's last batch still wants
    inside = slice(head, head + (n - head) // batch_size * batch_size)
    sorted_ = order[inside][np.argsort(lengths.bucket[order[inside]], kind="stable")].reshape(-1, batch_size)
    batches = generator(seed, "batches", epoch).permutation(len(sorted_))
    return np.concatenate([order[:head], sorted_[batches].ravel(), order[inside.stop :]])


def step_examples(seed, step, batch_size, n, lengths=None):
    """The examples of a step: positions step * B ... (step + 1) * B - 1 of the epochs' permutations laid end to end."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = positions // n, positions % n
    examples = np.empty(batch_size, np.int64)
    for epoch in map(int, range(epochs[0], epochs[-1] + 1)):
        here = epochs == epoch
        if lengths is None:
            order = permutation(seed, epoch, n)
        else:
            order = permutation_by_length(seed, epoch, batch_size, lengths)
        examples[here] = order[places[here]]
    return examples


def share(items, process, processes):
    """The rows of a global batch that one process reads: contiguous, as the devices of a mesh are."""
    rows = len(items) // processes
    return items[process * rows : (process + 1) * rows]
