"""Data sets by name: DATASETS[name](**arguments) -> Dataset. A new one is a function, or a line where TFDS has it."""

import dataclasses
from functools import partial

from research.data.cooccurrences import cooccurring
from research.data.dataset import from_tfds
from research.data.prepare import digits
from research.data.text import addition, labelled, pairs, parallel, running

DATASETS = {
    "digits": digits,
    "mnist": partial(from_tfds, "mnist"),
    "fashion_mnist": partial(from_tfds, "fashion_mnist"),
    "cifar10": partial(from_tfds, "cifar10"),
    "addition": addition,
    "parallel": parallel,
    "multi30k": partial(pairs, "multi30k", "de", "en"),
    "glue/sst2": partial(labelled, "glue/sst2", "sentence"),
    "tiny_shakespeare": partial(running, "tiny_shakespeare", "text"),
    "wikitext2": partial(running, "wikitext2", "text"),
    "wikitext2_cooccurrences": partial(cooccurring, "wikitext2", "text"),
}


def open_dataset(name, arguments, tokenizer=None):
    """DATASETS[name](**arguments), which remembers how it was opened.

    Args:
        tokenizer: the one of an earlier run, in place of the one that the arguments name.
    """
    if tokenizer is not None:
        arguments = {**arguments, "tokenizer": tokenizer}
    dataset = DATASETS[name](**arguments)
    if "tokenizer" in arguments:  # a worker process takes this very one
        arguments = {**arguments, "tokenizer": dataset.tokenizer}
    return dataclasses.replace(dataset, origin=(name, arguments))
