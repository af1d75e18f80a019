"""Data sets by name: DATASETS[name](**arguments) -> Dataset. A new one is a function, or a line where TFDS has it."""

import dataclasses
from functools import partial

from research.data.dataset import from_tfds
from research.data.prepare import digits

DATASETS = {
    "digits": digits,
    "mnist": partial(from_tfds, "mnist"),
    "fashion_mnist": partial(from_tfds, "fashion_mnist"),
    "cifar10": partial(from_tfds, "cifar10"),
}


def open_dataset(name, arguments):
    """DATASETS[name](**arguments), which remembers how it was opened."""
    return dataclasses.replace(DATASETS[name](**arguments), origin=(name, arguments))
