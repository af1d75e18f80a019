"""What a task is: five pure functions, the same for each."""

from collections.abc import Callable
from typing import NamedTuple


class Task(NamedTuple):
    """`spec` is a research.data.Dataset: what the data say of themselves.

    Sums are (sum, count) pairs of scalars: a task never divides.
    """

    inputs: Callable  # spec, config -> {name: ShapeDtypeStruct}: what the model is initialised with
    loss: Callable  # model, variables, batch, keys, train -> terms, metrics {name: (sum, count)}, model_state
    evaluate: Callable  # model, variables, batch -> sums {name: (sum, count)}, arrays {name: [B, ...]} for the host
    score: Callable  # arrays -> {name: float}: metrics that are no mean; masked rows are gone
    predict: Callable  # model, variables, batch -> {name: array[B, ...]}: what a person asks for
