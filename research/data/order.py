"""Which examples a step reads: a function of (seed, step), so that nothing has to be restored."""

from functools import lru_cache

import numpy as np

from research.randomness import generator


@lru_cache(maxsize=2)  # a batch touches two epochs at most, but where it is larger than an epoch
def permutation(seed, epoch, n):
    """The order of one epoch: int64[n], each example once."""
    return generator(seed, "order", epoch).permutation(n)


def step_examples(seed, step, batch_size, n):
    """The examples of a step: positions step * B ... (step + 1) * B - 1 of the epochs' permutations laid end to end."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = positions // n, positions % n
    examples = np.empty(batch_size, np.int64)
    for epoch in range(epochs[0], epochs[-1] + 1):
        here = epochs == epoch
        examples[here] = permutation(seed, int(epoch), n)[places[here]]
    return examples


def share(items, process, processes):
    """The rows of a global batch that one process reads: contiguous, as the devices of a mesh are."""
    rows = len(items) // processes
    return items[process * rows : (process + 1) * rows]
