"""What a task is: pure functions, the same five for each; and how each of them applies a model."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from research.errors import UserError


class Task(NamedTuple):
    """`spec` is a research.data.Dataset: what the data say of themselves.

    Sums are (sum, count) pairs of scalars: a task never divides. `keys` are {"dropout": key, "augment": key[B], one an
    example}; those of `evaluate` are {"augment": key[B]} alone, each from its example's number in the split, so that
    each evaluation draws the same, whatever the batch.
    """

    inputs: Callable  # spec, config -> {name: ShapeDtypeStruct}: what the model is initialised with
    loss: Callable  # model, variables, batch, keys, train -> terms, metrics {name: (sum, count)}, model_state
    evaluate: Callable  # model, variables, batch, keys -> sums {name: (sum, count)}, arrays {name: [B, ...]}
    score: Callable  # arrays on the host -> {name: float}: metrics that are no mean; masked rows are gone
    predict: Callable  # model, variables, batch -> {name: array[B, ...]}: what a person asks for
    weights: Mapping = MappingProxyType({})  # {term: its weight in the loss}; 1 where not named
    augment: Callable | None = None  # keys[B], batch -> batch: applied to each batch of training


def check_head(model, wanted, task):
    """Raises the error of a model whose head is not the one that a task scores; many have but one, and no such field.

    Raises:
        UserError: 2.
    """
    if (head := getattr(model, "head", wanted)) != wanted:
        raise UserError(2, f"config.model.head: {head}; config.task.name {task} wants {wanted}")


def read_weights(weights):
    """{term: its weight} of texts "term=weight".

    Raises:
        UserError: 2.
    """
    found = {}
    for text in weights:
        term, _, value = text.partition("=")
        try:
            found[term] = float(value)
        except ValueError:
            found[term] = -1.0
        if not 0 <= found[term] < math.inf:
            raise UserError(2, f"config.task.weights: {text!r}; a term=weight of at least 0 is wanted, as loss=0.5")
    return MappingProxyType(found)


def apply(model, variables, *inputs, train=False, keys=None, **options):
    """What a model makes of its inputs, and its collections as the call leaves them.

    Args:
        variables: {"params": ..., collection: ...}.
        keys: the step's; needed where it trains.
        options: further arguments of the model's call, `method` among them.

    Returns:
        outputs, {collection: ...}: all but params in training, else {}.
    """
    if not train:
        return model.apply(variables, *inputs, train=False, **options), {}
    own = {"rngs": {"dropout": keys["dropout"]}, "mutable": [name for name in variables if name != "params"]}
    return model.apply(variables, *inputs, train=True, **own, **options)
