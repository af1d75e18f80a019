"""What a run is, as data: defaults, sizes, overrides and checks. Wrong configs end here.

A config is an ml_collections ConfigDict of the sections below. Leaves are int, float, bool, str, None and tuples of
these. A section with a `name` also holds the arguments of the thing named: the fields of a Linen module, the keyword
arguments of a task, a data set or an optimizer, with their types read off the signature.
"""

import dataclasses
import functools
import importlib.util
import inspect
import json
import math
import pathlib
import typing

from ml_collections import ConfigDict, config_dict

from research.data import DATASETS
from research.errors import UserError, defined_at, nearest, pick, users_code
from research.fields import (
    CHOICES,
    FIELDS,
    MAY_CHANGE,
    MEANINGS,
    TEXT_AUGMENT,
    Field,
    check_value,
    kind_of,
    parse,
    text_of,
    type_name,
)
from research.metrics import direction_of
from research.models import MODELS
from research.optimizers import OPTIMIZERS
from research.tasks import TASKS
from research.tasks.several import heads

NAMED = {"data": DATASETS, "model": MODELS, "task": TASKS, "optimizer": OPTIMIZERS}


def base():
    """The default config: what a file in configs/ starts from."""
    config = ConfigDict()
    for path, field in FIELDS.items():
        _put(config, path, field)
    return config


def sized(config, size, **sizes):
    """The config of one size: `sizes` gives for each name but `base` what it overrides, as {dotted path: value}.

    Raises:
        UserError: 2, for a size that is not among them.
    """
    return override(config, pick({"base": {}, **sizes}, size, "config size"))


def load_file(argument):
    """configs/<name>.py or configs/<name>.py:<size> -> (config, file, size)."""
    file, _, size = str(argument).partition(":")
    with users_code(f"--config: {file}", __file__):
        module = _module(file)
        config = module.get_config(size or "base")
    if not isinstance(config, ConfigDict):
        raise UserError(
            2,
            f"--config: {file}: get_config returned {type(config).__name__}{defined_at(module.get_config)}; what began "
            "as research.config.base() is wanted",
        )
    return override(config, {}), file, size or "base"


def load_names(argument):
    """What a config file defines beside get_config, {name: value}: sweep_<name>(), search_space(), claims()."""
    file = str(argument).partition(":")[0]
    with users_code(f"--config: {file}", __file__):
        return vars(_module(file))


def _module(file):
    path = pathlib.Path(file)
    if path.suffix != ".py" or not path.is_file():
        known = sorted(str(p) for p in pathlib.Path("configs").glob("*.py"))
        raise UserError(
            2, f"--config: no file {file}{nearest(file, known)}; there are {', '.join(known) or 'none here'}"
        )
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def override(config, values):
    """A complete, checked and locked copy of `config` with `values` {dotted path: value or its text} set.

    Sets names first: drops the arguments of the previous name and fills in the defaults of the new one. Setting one of
    steps and epochs clears the other. A new eval.metric resets eval.direction. "none" unsets an optional field.

    Raises:
        UserError: 2, naming the field and the remedy.
    """
    flat = leaves(config)
    judged = flat.setdefault("eval.metric", FIELDS["eval.metric"].default)
    if values.get("eval.metric", judged) != judged:
        flat["eval.direction"] = None
    for section in NAMED:
        path = f"{section}.name"
        if path in values and values[path] != flat.get(path):
            flat = {key: v for key, v in flat.items() if not key.startswith(f"{section}.") or key in FIELDS}
            flat[path] = values[path]
    fields = _fields({section: flat.get(f"{section}.name", FIELDS[f"{section}.name"].default) for section in NAMED})
    for path in [*flat, *values]:
        if path not in fields:
            inside = [known for known in fields if known.startswith(f"{path}.")]
            if inside:
                raise UserError(2, f"config.{path}: a section, not a field; its fields are {', '.join(inside)}")
            section, _, leaf = path.partition(".")
            owners = [name for name, thing in NAMED.get(section, {}).items() if leaf in _signature(thing)]
            if owners:
                named = flat.get(f"{section}.name", fields[f"{section}.name"].default)
                raise UserError(2, f"config.{path}: {named} has no {leaf}; {', '.join(sorted(owners))} would have it")
            raise UserError(
                2, f"config.{path}: no such field{nearest(f'config.{path}', [f'config.{p}' for p in fields])}"
            )
    parsed = {path: parse(path, fields[path].type, value) for path, value in values.items()}
    for path, value in parsed.items():
        twin = _twin(path)
        if twin in fields and value is not None:
            if parsed.get(twin) is not None:
                raise UserError(2, f"config.{path}: given together with config.{twin}; give one of them")
            flat[twin] = None
    flat = {path: parse(path, fields[path].type, flat[path]) for path in flat} | parsed
    flat["eval.direction"] = flat.get("eval.direction") or direction_of(flat["eval.metric"])
    if flat.get("eval.every_steps") is None and flat.get("eval.every_epochs") is None:
        flat["eval.every_epochs"] = 1.0
    result = ConfigDict()
    for path, field in fields.items():
        _put(result, path, field._replace(default=flat.get(path, field.default)))
    _check(result)
    return result.lock()


def resolve(config, dataset, devices):
    """Fills in what the data determine and checks what depends on them and on the machine.

    Args:
        config: complete.
        dataset: research.data.Dataset, opened: its splits and classes are known.
        devices: how many devices the run has, over all processes.

    Returns:
        the config as it goes into config.json, locked.
    """
    config = override(config, _determined(config, dataset))
    size = config.data.batch_size
    parts = devices * config.train.microbatches
    if size % parts:
        raise UserError(
            2,
            f"config.data.batch_size: {size} is not divisible by {devices} devices x {config.train.microbatches} "
            f"microbatches; the next that is: {-(-size // parts) * parts}",
        )
    for name, value in config.data.augment.items():
        images, of_text = "image" in dataset.features, name in TEXT_AUGMENT
        if value and (of_text == images or of_text and not dataset.augmented):
            raise UserError(
                2,
                f"config.data.augment.{name}: {config.data.name} has no {'text' if of_text else 'images'} to change",
            )
    text = [name for name in TEXT_AUGMENT if config.data.augment[name]]
    if text and not dataset.tokenizer.is_ours:
        kinds = "characters, bytes, blanks, words, bpe, wordpiece or unigram"
        raise UserError(2, f"config.data.augment.{text[0]}: config.data.tokenizer must be {kinds}")
    if config.data.augment.swap and dataset.places:
        fields = ", ".join(dataset.places)
        raise UserError(2, f"config.data.augment.swap: {config.data.name} has places of tokens: {fields}; set it to 0")
    side = min(dataset.features["image"][0][:2]) if images else math.inf
    if config.data.augment.cutout >= side:
        raise UserError(2, f"config.data.augment.cutout: {config.data.augment.cutout} covers images of side {side}")
    if config.data.augment.mixup and (size // devices) % 2:
        raise UserError(
            2, f"config.data.batch_size: mixup pairs neighbours, so {size} / {devices} devices must be even"
        )
    n = dataset.count(config.data.splits.train, "train")
    for split in ("validation", "test"):
        if config.data.splits[split] is not None:
            dataset.count(config.data.splits[split], split)
    if size > n:
        raise UserError(
            2,
            f"config.data.batch_size: {size} is larger than config.data.splits.train "
            f"{config.data.splits.train!r}, which has {n} examples",
        )
    times = durations(config, n)
    if times["train"] < 1:
        raise UserError(2, f"config.train.epochs: {config.train.epochs} epochs of {n} examples are not one step")
    if config.optimizer.schedule == "wsd" and (times["decay"] or 0) > times["train"] - times["warmup"]:
        raise UserError(
            2,
            f"config.optimizer.decay_steps: {times['decay']} steps of decay and {times['warmup']} of "
            f"warm-up in a run of {times['train']}",
        )
    if times["warmup"] > times["train"]:
        given = "warmup_steps" if config.optimizer.warmup_epochs is None else "warmup_epochs"
        raise UserError(
            2,
            f"config.optimizer.{given}: {config.optimizer[given]} is {times['warmup']} steps of warm-up in a run of "
            f"{times['train']}; give less, none, or more config.train.steps",
        )
    return config


def _determined(config, dataset):
    """What the data set determines: splits that are carved, how many classes or tokens the model is for."""
    values = dict(zip(("data.splits.train", "data.splits.validation"), dataset.carve(config.data.splits)))
    parts = heads(dataset) if "head" in config.model and config.model.head == "several" else ()
    for field, found in (("classes", dataset.classes), ("vocabulary", dataset.vocabulary), ("parts", parts)):
        if field in config.model:
            if config.model[field] not in (None, (), found):
                raise UserError(2, f"config.model.{field}: {config.model[field]}, but {config.data.name} has {found}")
            if found is None and "head" not in config.model:  # by which a model decides whether it wants it
                raise UserError(2, f"config.model.name: {config.model.name} wants {field}; {config.data.name} has none")
            values[f"model.{field}"] = found
    return values


def durations(config, examples):
    """Every duration of a config in steps: {"train", "warmup", "decay", "boundaries", "eval", "checkpoint"}.

    An epoch of n examples is n / batch_size steps, and a time in epochs is rounded up to whole steps.
    """
    epoch = examples / config.data.batch_size

    def steps(path, name, default=0):
        section = config[path]
        in_steps, in_epochs = section[f"{name}steps"], section[f"{name}epochs"]
        if in_epochs is not None:

            def scale(epochs):
                if not epochs * epoch < 2**31:  # what the step's int32 holds
                    raise UserError(2, f"config.{path}.{name}epochs: {epochs} epochs of {examples} are too many steps")
                return math.ceil(round(epochs * epoch, 6))

            return tuple(map(scale, in_epochs)) if isinstance(in_epochs, tuple) else scale(in_epochs)
        return default if in_steps is None else in_steps

    evaluation = max(1, steps("eval", "every_"))
    return {
        "train": steps("train", ""),
        "warmup": steps("optimizer", "warmup_"),
        "decay": steps("optimizer", "decay_", None),
        "boundaries": steps("optimizer", "boundaries_", ()),
        "eval": evaluation,
        "checkpoint": config.checkpoint.every_steps or evaluation,
    }


def to_json(config):
    """The config as plain data; `from_json` gives it back."""
    return json.loads(json.dumps(config.to_dict(), allow_nan=False))


def from_json(data):
    """A config from plain data, as in config.json: lists become tuples, keys that it lacks get their default."""
    return override(ConfigDict(data, convert_dict=True), {})


def differences(a, b):
    """The dotted paths at which two configs differ, with both values: [(path, in a, in b)]."""
    a, b = leaves(a), leaves(b)
    return [(path, a.get(path), b.get(path)) for path in {**a, **b} if a.get(path) != b.get(path)]


def conflicts(a, b):
    """Returns the differences between two configs that a resumed run must not have; see `differences`."""
    return [found for found in differences(a, b) if found[0] not in MAY_CHANGE]


def value(config, path):
    """The leaf at a dotted path."""
    return functools.reduce(lambda section, key: section[key], path.split("."), config)


def as_mapping(config, values):
    """The config as nested dicts with other leaves {dotted path: value} in it, which may be arrays, traced ones too."""
    settings = config.to_dict()
    for path, leaf in values.items():
        *sections, name = path.split(".")
        functools.reduce(lambda section, key: section[key], sections, settings)[name] = leaf
    return settings


def arguments(section, config):
    """The arguments of the thing that a section names: what stands there beside the section's common fields."""
    return {
        key.split(".", 1)[1]: value
        for key, value in leaves(config).items()
        if key.startswith(f"{section}.") and key not in FIELDS
    }


def describe(config=None):
    """Lines for --help: each field with its default (or its value in `config`), type and meaning."""
    fields = _fields({s: (config[s].name if config else FIELDS[f"{s}.name"].default) for s in NAMED})
    values = leaves(config) if config else {path: field.default for path, field in fields.items()}
    return [
        f"  --config.{path}={text_of(values[path])}".ljust(48)
        + f" {type_name(field.type)}"
        + f": {_meaning(path, field, values)}"
        + (f" ({', '.join(CHOICES[path.split('.')[-1]])})" if path.split(".")[-1] in CHOICES and not field.help else "")
        for path, field in fields.items()
    ]


def _meaning(path, field, values):
    section, leaf = path.split(".")[0], path.split(".")[-1]
    if leaf == "name":
        return f"{field.help}: {', '.join(sorted(NAMED[section]))}"
    return field.help or MEANINGS.get(path) or MEANINGS.get(leaf) or f"of {values[f'{section}.name']}"


def _fields(names):
    """{path: Field} of every leaf that a config with these names may have."""
    fields = dict(FIELDS)
    for section, name in names.items():
        if not isinstance(name, str):
            raise UserError(
                2, f"config.{section}.name: {name!r} is no name; known are {', '.join(sorted(NAMED[section]))}"
            )
        builder = pick(NAMED[section], name, f"config.{section}.name")
        for key, field in _signature(builder).items():
            fields.setdefault(f"{section}.{key}", field)
    return fields


def _signature(builder):
    if dataclasses.is_dataclass(builder):  # a Linen module
        own = [f for f in dataclasses.fields(builder) if f.name not in ("name", "parent")]
        return {f.name: Field(f.type, f.default) for f in own}
    parameters = inspect.signature(builder).parameters.values()
    return {p.name: Field(p.annotation, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def leaves(config, prefix=""):
    """{dotted path: value} of a config, or of any nested mapping."""
    flat = {}
    for key in config.keys():
        value = config[key]
        if isinstance(value, (ConfigDict, dict)):
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _put(config, path, field):
    *sections, leaf = path.split(".")
    for section in sections:
        if section not in config:
            config[section] = ConfigDict()
        config = config[section]
    kind, _ = kind_of(field.type)
    # A bare None would take any type.
    config[leaf] = config_dict.placeholder(typing.get_origin(kind) or kind) if field.default is None else field.default


def _twin(path):
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if path.endswith(one):
            return path.removesuffix(one) + other
    return None


def _check(config):
    flat = leaves(config)
    for path, value in flat.items():
        check_value(path, value)
        if _twin(path) in flat and value is not None and flat[_twin(path)] is not None:
            raise UserError(2, f"config.{path}: given together with config.{_twin(path)}; give one of them")
    if "://" in (flat["init_from"] or ""):
        raise UserError(2, f"config.init_from: {flat['init_from']}: a URL; give a run folder, or hf:FOLDER_OR_NAME")
    if flat["train.steps"] is None and not flat["train.epochs"]:
        raise UserError(2, "config.train.epochs: a run needs a length; give this or config.train.steps")
    if flat["optimizer.schedule"] == "exponential" and not flat["optimizer.end_factor"]:
        raise UserError(2, "config.optimizer.end_factor: exponential multiplies the rate by it; it must be above 0")
    if flat["train.debug_nans"] and flat["train.parallel"] == "pmap":
        raise UserError(2, "config.train.debug_nans: works with jit; set config.train.parallel=jit")
    bounds = flat["optimizer.boundaries_steps"] or flat["optimizer.boundaries_epochs"] or ()
    if flat["optimizer.schedule"] == "piecewise" and len(bounds) != len(flat["optimizer.boundary_factors"]):
        raise UserError(
            2,
            f"config.optimizer.boundary_factors: {len(flat['optimizer.boundary_factors'])} factors "
            f"for {len(bounds)} boundaries; give one for each",
        )
