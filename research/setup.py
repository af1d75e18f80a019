"""What a run is made of, built from its config and checked before anything is compiled or written."""

import inspect
import math
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from research import config as configs
from research import metrics, pictures, sharding
from research.backend import traced_for
from research.data import open_dataset
from research.data.augment import make_augment
from research.data.batches import absent_parts, labels, open_split, read, train_batches
from research.errors import UserError, defined_at, nearest, users_code
from research.models import MODELS
from research.optimizers import make_optimizer, path_of
from research.randomness import fold, run_key
from research.tasks import TASKS
from research.train_step import eval_keys, eval_variables, example_keys, make_init


class Setup(NamedTuple):
    """The parts of a run."""

    config: Any
    dataset: Any
    splits: dict  # {"train": Split, ...}
    model: Any
    task: Any
    mesh: Any
    optimizer: Any = None  # this and what follows only where there is something to train
    times: dict | None = None  # durations in steps
    init: Any = None  # key -> TrainState
    abstract: Any = None  # TrainState of ShapeDtypeStructs with shardings
    constants: Any = MappingProxyType({})  # {collection: ...} that the step and evaluation read beside the state

    def notes(self, streamed):
        """Returns lines for the log on the data: of the splits that stream, known after the run, or of all else."""
        own = [] if streamed else list(self.dataset.notes)
        own += [note for split in self.splits.values() if split.at_hand != streamed for note in split.notes()]
        return list(dict.fromkeys(own))  # train and validation may be of one base split


def resolve(config, devices=None, tokenizer=None):
    """Opens the data set, fills in what it determines and makes the mesh: (config, dataset, mesh). Reads no example but
    to train a tokenizer.

    Args:
        config: complete; see research.config.
        devices: those to use; all of them, if not given.
        tokenizer: of the run that goes on; a new one, if not given.

    Raises:
        UserError: 2 or 3.
    """
    mesh = sharding.make_mesh(devices)
    dataset = open_dataset(config.data.name, configs.arguments("data", config), tokenizer)
    return configs.resolve(config, dataset, mesh.devices.size), dataset, mesh


def prepare(config, dataset, mesh):
    """What `resolve` returns -> Setup, or the error that its user should see.

    Raises:
        UserError: 2 or 3; before anything is compiled or written.
    """
    times = configs.durations(config, dataset.count(config.data.splits.train))
    model, task = build(config, dataset)
    optimizer = make_optimizer(config.optimizer, configs.arguments("optimizer", config), times)
    check_fit(model, task.inputs(dataset, config), config)
    init = traced_for(mesh, make_init(model, task, dataset, config, optimizer))
    whole = sharding.replicated(mesh)
    with users_code(f"config.model.name: {config.model.name}", __file__):
        abstract = jax.eval_shape(init, run_key(config.seed))
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), abstract)
    limit, workers = config.data.memory_limit_bytes, config.data.workers
    named = [(role, text) for role, text in config.data.splits.items() if text is not None]
    splits = {role: open_split(dataset, text, role, limit, workers) for role, text in named}
    setup = Setup(config, dataset, splits, model, task, mesh, optimizer, times, init, abstract)
    _check_task(setup)
    return setup


def build(settings, dataset):
    """Builds model and task of a config, or of any mapping with its sections: numbers may be arrays."""
    model = MODELS[settings["model"]["name"]](**configs.arguments("model", settings))
    task = TASKS[settings["task"]["name"]](dataset, **configs.arguments("task", settings))
    return model, task._replace(augment=make_augment(settings["data"]["augment"], dataset))


def prepare_evaluation(config, split, tokenizer=None):
    """The Setup in which research.evaluation.evaluate finds one split, under the name `split` itself.

    Args:
        config: of a run, complete.
        split: one of train, validation, test as the config has them, or any split string.
        tokenizer: the run's own, where it has one.
    """
    dataset = open_dataset(config.data.name, configs.arguments("data", config), tokenizer)
    text = config.data.splits.get(split, split)
    if text is None:
        raise UserError(2, f"--split: the run has no {split} split")
    opened = open_split(dataset, text, f"--split={split}", config.data.memory_limit_bytes, config.data.workers)
    model, task = build(config, dataset)
    return Setup(config, dataset, {split: opened}, model, task, sharding.make_mesh())


def check_fit(model, inputs, config):
    """The model takes what the task gives, by name."""
    taken = inspect.signature(type(model).__call__).parameters.values()
    positional = [p for p in list(taken)[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    wanted, known = {p.name for p in positional if p.default is p.empty}, {p.name for p in positional}
    if not wanted <= set(inputs) or not set(inputs) <= known:
        raise UserError(
            2,
            f"config.model.name: {config.model.name} takes {', '.join(p.name for p in positional)}, but "
            f"config.task.name {config.task.name} gives {', '.join(inputs)}",
        )
    if "types" in inputs and getattr(model, "types", 2) < 2:
        raise UserError(
            2, f"config.model.types: {model.types}; config.task.name {config.task.name} reads pairs of texts, whose "
            "second part is of type 1; give 2"
        )  # fmt: skip


def summary(params):
    """Lines of a table: path, shape, dtype and count of each parameter, and the sum."""
    rows = [
        (path_of(path), "x".join(map(str, leaf.shape)) or "scalar", str(leaf.dtype), f"{math.prod(leaf.shape):,}")
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    rows = [("parameter", "shape", "dtype", "count"), *rows, ("total", "", "", f"{total:,}")]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows]


def _check_task(setup):
    """Task and model go together, and the metrics that the config goes by are among those that the task evaluates."""
    task, name = setup.task, setup.config.task.name
    variables = eval_variables(setup.abstract, setup.constants)
    batch = {**read(setup.splits["validation"], [0]), "mask": np.ones(1, np.float32)}
    keys = {"dropout": run_key(0), "augment": example_keys(run_key(0), 0, 1)}
    own = {"params": setup.abstract.params, **setup.abstract.model_state, **setup.constants}
    with users_code(f"config.task.name: {name} on config.model.name {setup.config.model.name}", __file__):
        loss = traced_for(setup.mesh, lambda v, b, k: task.loss(setup.model, v, b, k, True))
        found = jax.eval_shape(loss, own, batch, keys)
        given = (variables, batch, eval_keys(np.zeros(1, np.int32)))
        evaluate = traced_for(setup.mesh, lambda v, b, k: task.evaluate(setup.model, v, b, k))
        evaluated = jax.eval_shape(evaluate, *given)
    if not isinstance(found, tuple) or len(found) != 3:
        raise UserError(
            2, f"config.task.name: {name}: loss gives no terms, metrics, model_state{defined_at(task.loss)}"
        )
    if lost := sorted(set(setup.abstract.model_state) - set(found[2])):
        raise UserError(2, f"config.task.name: {name}: loss gives no {', '.join(lost)} back{defined_at(task.loss)}")
    if unknown := sorted(set(task.weights) - set(found[0])):
        known = ", ".join(found[0])
        raise UserError(2, f"config.task.weights: there is no term {', '.join(unknown)}; the terms are {known}")
    if not isinstance(evaluated, tuple) or len(evaluated) != 2:
        raise UserError(2, f"config.task.name: {name}: evaluate gives no sums, arrays{defined_at(task.evaluate)}")
    for function, pairs in ((task.loss, found[0] | found[1]), (task.evaluate, evaluated[0])):
        _check_sums(name, function, pairs)
    sums, arrays = evaluated
    rows = {name: np.zeros((max(1, len(setup.dataset.parts)), *x.shape[1:]), x.dtype) for name, x in arrays.items()}
    if setup.dataset.parts:
        rows["part"] = np.arange(len(setup.dataset.parts))  # a row per part, since a part without rows has no scores
    scores = setup.task.score(rows)
    known = [*sums, *scores]
    wanted = {
        "eval.metric": setup.config.eval.metric,
        "train.early_stopping.metric": setup.config.train.early_stopping.metric,
    }
    absent = absent_parts(setup.splits["validation"])
    for path, name in wanted.items():
        if name is not None and name not in known:
            raise UserError(
                2, f"config.{path}: {name!r} is not evaluated; known are {', '.join(known)}{nearest(name, known)}"
            )
        if part := next((part for part in absent if (name or "").startswith(f"{part}_")), None):
            raise UserError(2, f"config.{path}: {name}: no example of validation is from {part}; set another metric, "
                               "or config.data.validation")  # fmt: skip
    _check_direction(setup.config)


def _check_direction(config):
    """Checks the direction of the metrics that select the best checkpoint and stop a run early.

    Raises:
        UserError: 2.
    """
    metric, direction, watched = config.eval.metric, config.eval.direction, config.train.early_stopping.metric
    if direction is None:
        raise UserError(
            2, f"config.eval.direction: needed, since {metric} is not known to be better when it is lower or higher; "
            "give min or max"
        )  # fmt: skip
    if direction != (known := metrics.direction_of(metric) or direction):
        raise UserError(
            2, f"config.eval.direction: {direction} would select the worst checkpoint by {metric}; leave it out, or "
            f"give {known}"
        )  # fmt: skip
    if watched is not None and metrics.watched_direction(config) is None:
        raise UserError(
            2, f"config.train.early_stopping.metric: {watched} is not known to be better when it is lower or higher; "
            "watch config.eval.metric, whose config.eval.direction states it"
        )  # fmt: skip


def _check_sums(task, function, pairs):
    """What a task calls sums are pairs of scalars."""
    for name, pair in pairs.items():
        if not isinstance(pair, tuple) or len(pair) != 2 or any(x.shape != () for x in pair):
            given = ", ".join(str(list(x.shape)) for x in jax.tree.leaves(pair))
            raise UserError(
                2,
                f"config.task.name: {task}: gives for {name} what is of shape {given}{defined_at(function)}; a pair of "
                "scalars, (sum, count), is wanted",
            )


def absent_classes(setup):
    """A line on classes of train that validation has no example of: no choice made on it can know them."""
    train, validation = (labels(setup.splits[role]) for role in ("train", "validation"))
    absent = [] if train is None or validation is None else sorted(set(train.tolist()) - set(validation.tolist()))
    if not absent:
        return []
    names = ", ".join(setup.dataset.labels[i] for i in absent[:10]) + (", ..." if len(absent) > 10 else "")
    remedy = "take more" if setup.dataset.shuffled else "take parts of train_shuffled for both"
    text = setup.config.data.splits.validation
    return [
        f"warning: config.data.splits.validation: {text} has no example of {len(absent)} of train's classes: {names}; "
        f"{remedy}"
    ]


def abstract_params(config):
    """Shapes and dtypes of a config's parameters; needs the data set's description, but none of its examples."""
    config, dataset, _ = resolve(config, sharding.all_devices()[:1])
    model, task = build(config, dataset)
    inputs = task.inputs(dataset, config)
    check_fit(model, inputs, config)
    with users_code(f"config.model.name: {config.model.name}", __file__):
        return jax.eval_shape(lambda **inputs: model.init(run_key(0), **inputs, train=False), **inputs)["params"]


def show_data(config, output, examples, step):
    """Writes the picture of a training batch as read and as augmented; returns a line on each example. Text has no
    picture: its lines show both."""
    config, dataset, _ = resolve(config, sharding.all_devices()[:1])
    split = open_split(dataset, config.data.splits.train, "train", config.data.memory_limit_bytes, 0)
    batch = next(train_batches(split, config.seed, config.data.batch_size, step, step + 1))
    augment = make_augment(config.data.augment, dataset)
    key = fold(run_key(config.seed), "step", step)
    after = jax.jit(augment)(example_keys(key, 0, config.data.batch_size), batch) if augment else batch
    n = min(examples, config.data.batch_size)
    if "image" in batch:
        pictures.before_and_after(output, batch["image"][:n], after["image"][:n])
        return [_caption(dataset, batch, after, i) for i in range(n)]
    lines = []
    for i in range(n):
        for field in dataset.sequences:
            read, changed = (_as_text(dataset.tokenizer, x[field][i]) for x in (batch, after))
            lines.append(f"{i}: {field}: {read}" + (f" -> {changed}" if changed != read else ""))
        lines += [f"{i}: {line}" for line in _told(dataset, {name: x[i] for name, x in batch.items()})]
    return lines


def _told(dataset, example):
    """Lines on what is right of an example of text: its label, or the tags of its words."""
    if dataset.parts:
        name = list(dataset.parts)[example["part"]]
        own = {field.removeprefix(f"{name}_"): x for field, x in example.items()}
        return [f"part: {name}", *_told(dataset.parts[name], own)]
    if "tags" in example:
        named = [(token, dataset.labels[tag]) for token, tag in zip(example["tokens"], example["tags"]) if tag >= 0]
        words = [f"{dataset.tokenizer.vocabulary[token]}:{tag}" for token, tag in named if tag != "O"]
        return [f"tags: {' '.join(words) or 'O alone'}"]
    if "answers" in example:
        first, last = example["first"], example["last"]
        told = dataset.tokenizer.decode(example["tokens"][first : last + 1]) if first else "not in this window"
        return [f"answer: {told}"]
    return [f"label: {dataset.labels[example['label']]}"] if dataset.labels else []


def _as_text(tokenizer, ids):
    """What ids say; of a pair both parts."""
    parts = np.split(ids, np.flatnonzero(ids == tokenizer.end) + 1)
    return " | ".join(text for part in parts if (text := tokenizer.decode(part)))


def _caption(dataset, batch, after, i):
    text = f"{i}: {dataset.labels[batch['label'][i]]}"
    if "mixed_label" in after and after["mix"][i] < 1:
        text = f"{text} {after['mix'][i]:.2f}, {dataset.labels[after['mixed_label'][i]]} {1 - after['mix'][i]:.2f}"
    return text
