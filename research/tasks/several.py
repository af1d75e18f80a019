"""Several tasks at once, on a mixture of data sets: one trunk, a head a task."""

from typing import Any, NamedTuple

from research.errors import UserError
from research.tasks.answer_span import answer_span
from research.tasks.classify import classify_text
from research.tasks.tag_tokens import tag_tokens
from research.tasks.task import Task, apply, check_head, read_weights

TASK_OF = {"label": classify_text, "tags": tag_tokens, "span": answer_span}  # by what a head tells
TOLD = {"label": "label", "tags": "tags", "answers": "span"}  # by the field of the data that says what is right
SHARED = ("tokens", "types")  # fields of all parts; each other is PART_FIELD


class Outputs(NamedTuple):
    """In place of a model: what a head of it has told."""

    head: str
    outputs: Any

    def apply(self, variables, *inputs, mutable=None, **options):
        return self.outputs if mutable is None else (self.outputs, {})


def heads(spec):
    """A head for each part of a mixture, as Encoder.parts has them: (NAME:KIND:CLASSES, ...).

    Raises:
        UserError: 2, for a part of which no head tells anything.
    """
    found = []
    for name, part in spec.parts.items():
        kind = next((kind for field, kind in TOLD.items() if field in part.features), None)
        if kind is None:
            has = ", ".join(part.features)
            raise UserError(2, f"config.data.parts: {part.name} has {has}; labels, tags or answers are wanted")
        found.append(f"{name}:{kind}:{2 if kind == 'span' else part.classes}")
    return tuple(found)


def several(spec, *, weights: tuple[str, ...] = ()):
    """The losses of classify_text, tag_tokens and answer_span, each on the rows of its own part of a mixture. The trunk
    is computed once for all; a mean is over the rows of its part. Liu et al. 2019 (MT-DNN, arXiv:1901.11504).

    Batches hold what research.data.mixture says, and mask float32[B]. Metrics are PART_METRIC; in evaluation `loss` is
    the mean over all that is counted in any of them.

    Args:
        weights: of the parts, as newsgroups20=0.5; 1 where not named.
    """
    if not spec.parts:
        raise UserError(2, f"config.task.name: several wants parts; {spec.name} has none; config.data.name=mixture has")
    kinds = {name: kind for name, kind, _ in (part.split(":") for part in heads(spec))}
    tasks = {name: TASK_OF[kind](spec.parts[name]) for name, kind in kinds.items()}

    def inputs(spec, config):
        found = {}
        for task in tasks.values():
            found |= task.inputs(spec, config)
        return found

    def told(model, variables, batch, **training):
        """For each part its name, its task, what stands in for its model, and its batch: other rows count nothing; and
        the model's state."""
        check_head(model, "several", "several")
        own = {name: batch[name] for name in SHARED if name in spec.features}
        seen = batch["tokens"] != spec.tokenizer.pad
        outputs, model_state = apply(model, variables, **own, mask=seen, **training)
        models = {name: Outputs(kind, outputs[name]) for name, kind in kinds.items()}
        return [(name, tasks[name], models[name], _own(spec, name, batch)) for name in tasks], model_state

    def loss(model, variables, batch, keys, train):
        parts, model_state = told(model, variables, batch, train=train, keys=keys)
        losses, metrics = {}, {}
        for name, task, told_by, own in parts:
            found = task.loss(told_by, {}, own, keys, train)
            losses, metrics = losses | _named(name, found[0]), metrics | _named(name, found[1])
        return losses, metrics, model_state

    def evaluate(model, variables, batch, keys):
        sums, arrays = {}, {"part": batch["part"]}
        for name, task, told_by, own in told(model, variables, batch)[0]:
            found = task.evaluate(told_by, {}, own, keys)
            sums, arrays = sums | _named(name, found[0]), arrays | _named(name, found[1])
        total = tuple(map(sum, zip(*(sums[f"{name}_loss"] for name in tasks))))
        return {"loss": total, **sums}, arrays

    def score(arrays):
        found = {}
        for number, (name, task) in enumerate(tasks.items()):
            rows, prefix = arrays["part"] == number, f"{name}_"
            if not rows.any():
                continue
            own = {key.removeprefix(prefix): x[rows] for key, x in arrays.items() if key.startswith(prefix)}
            found |= _named(name, task.score(own))
        return found

    def predict(model, variables, batch):
        found = {}
        for name, task, told_by, own in told(model, variables, batch)[0]:
            found |= _named(name, task.predict(told_by, {}, own))
        return found

    return Task(inputs, loss, evaluate, score, predict, _factors(read_weights(weights), tasks))


def _named(part, found):
    return {f"{part}_{name}": value for name, value in found.items()}


def _own(spec, name, batch):
    """A batch as a part has it, in which the rows of others are masked."""
    keys = {field: field if field in SHARED else f"{name}_{field}" for field in spec.parts[name].features}
    own = {field: batch[key] for field, key in keys.items() if key in batch}
    if "mask" in batch:
        own["mask"] = batch["mask"] * (batch["part"] == list(spec.parts).index(name))
    return own


def _factors(given, tasks):
    """{term: its weight}, by the weights of the parts, and in a part by its own task's."""
    if unknown := sorted(set(given) - set(tasks)):
        known = ", ".join(tasks)
        raise UserError(2, f"config.task.weights: there is no part {', '.join(unknown)}; the parts are {known}")
    return {f"{name}_{term}": given.get(name, 1.0) * factor
            for name, task in tasks.items() for term, factor in (task.weights or {"loss": 1.0}).items()}  # fmt: skip
