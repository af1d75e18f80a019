"""What layouts share: fields of a config.json, none of them believed, and weights put where they belong, and back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.errors import UserError
from research.optimizers import unstacked
from research.pretrained.folder import as_float32


class Weight(NamedTuple):
    """What a variable is there."""

    names: tuple[str, ...]  # of tensors whose columns, as we have them, stand side by side
    turned: bool = False  # [out, in]


def whole(config, name, path):
    """A field that is a whole number of at least 1.

    Raises:
        UserError: 3, naming it.
    """
    value = config.get(name)
    if type(value) is not int or not 0 < value < 2**31:
        found = "missing" if value is None else repr(value)
        raise UserError(3, f"{path}: {name}: {found}; a whole number of at least 1 is wanted")
    return value


def choice(config, name, default, known, path):
    """A field that is one of some; see `whole`."""
    value = config.get(name, default)
    if value not in list(known):  # it may be anything, also what cannot be hashed
        raise UserError(3, f"{path}: {name}: {value!r}; known are {', '.join(known)}")
    return known[value]


def rate(config, name, default, path):
    """A field that is a rate of dropout; see `whole`."""
    value = config.get(name, default)
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise UserError(3, f"{path}: {name}: {value!r}; a number from 0 to below 1 is wanted")
    return float(value)


def divided(config, width, heads, path):
    """Both fields, where one divides the other; see `whole`."""
    sizes = whole(config, width, path), whole(config, heads, path)
    if sizes[0] % sizes[1]:
        raise UserError(3, f"{path}: {heads}: {sizes[1]} does not divide {width} {sizes[0]}")
    return sizes


def check_fixed(config, fixed, path):
    """Raises the error of a field that says what our model does not do; see `whole`."""
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise UserError(3, f"{path}: {name}: {config[name]!r}; only {value!r} is known here")


def check_fields(model, kind, known):
    """Raises the error of a field of ours whose value a layout has not: code 2, naming it.

    Args:
        known: {field: values}.
    """
    for field, values in known.items():
        if (value := getattr(model, field)) not in values:
            raise UserError(2, f"config.model.{field}: {value!r}; {kind} has {' or '.join(map(repr, values))}")


def architecture(config, default, known, path):
    """The one name in `architectures`; see `whole`."""
    named = config.get("architectures") or [default]
    if named not in [[name] for name in known]:
        raise UserError(3, f"{path}: architectures: {named!r}; one of {', '.join(known)} is known")
    return named[0]


def classes_of(config, path):
    """Returns the number of labels: of the named ones, else `num_labels`, else transformers' default; see `whole`."""
    labels = config.get("id2label")
    if isinstance(labels, dict) and labels:
        return len(labels)
    return 2 if config.get("num_labels") is None else whole(config, "num_labels", path)


def default_labels(classes):
    """The names of labels that have none."""
    return tuple(f"LABEL_{i}" for i in range(classes))


def labels_of(config):
    """The names of the labels, in their order; () where they have none, or not one each."""
    named = config.get("id2label")
    try:
        names = tuple(named[key] for key in sorted(named, key=int))
    except (TypeError, ValueError, AttributeError):
        return ()
    own = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    return names if own and names != default_labels(len(names)) else ()


def named_labels(names):
    """The fields that name labels."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def check_layers(layers, tensors, weights, path):
    """Raises the error of more layers than there are weights for, before anything is as large as config.json says."""
    if tensors * layers > len(weights):
        raise UserError(3, f"{path}: {len(weights)} tensors are too few for the {layers} layers of config.json")


def read(places, shapes, weights, path, tied, spare):
    """{collection: {...: float32 array}} out of weights.

    Args:
        places: {a variable's path: Weight}.
        shapes: {a variable's path: its shape}.
        weights: {name: array}.
        path: of the file that an error names.
        tied: {a name: another}, of the same numbers where both are there; either of them may be missing.
        spare: names of what is not read.

    Raises:
        UserError: 3, for a weight that is missing, has no place, or is not what the model wants.
    """
    there, wanted = set(weights) - set(spare), [name for weight in places.values() for name in weight.names]
    for name, other in tied.items():
        if name in there and name not in wanted:
            if other not in there:
                weights, there = {**weights, other: weights[name]}, there | {other}
            if not np.array_equal(weights[name], weights.get(other)):
                raise UserError(3, f"{path}: {name} is not {other}, to which it is tied")
            there.remove(name)
    more = lambda names: f" and {len(names) - 1} more" if len(names) > 1 else ""
    if missing := [name for name in wanted if name not in there]:
        raise UserError(3, f"{path}: {missing[0]}{more(missing)}, which config.json asks for, is missing")
    if extra := sorted(there - set(wanted)):
        raise UserError(3, f"{path}: {extra[0]}{more(extra)} has no place in the model that config.json describes")
    variables = {}
    for place, (names, turned) in places.items():
        *rows, columns = shapes[place]
        own = (*rows, columns // len(names))
        parts = [as_float32(path, name, weights[name], own[::-1] if turned else own) for name in names]
        *sections, leaf = place
        at = variables
        for section in sections:
            at = at.setdefault(section, {})
        at[leaf] = jnp.concatenate([part.T if turned else part for part in parts], axis=-1)
    return variables


def written(places, variables):
    """{name: float32 array}, of variables whose layers may be stacked."""
    variables, weights = unstacked(variables), {}
    for place, (names, turned) in places.items():
        x = variables
        for key in place:
            x = x[key]
        for name, part in zip(names, np.split(np.asarray(x, np.float32), len(names), axis=-1)):
            weights[name] = part.T if turned else part
    return weights


def shapes_of(model):
    """{a variable's path: its shape}."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    found = jax.eval_shape(lambda tokens: model.init(jax.random.key(0), tokens), tokens)
    return {tuple(k.key for k in path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(found)}


def applied(apply, model, ids):
    """Returns `apply`, a jitted function, or the function itself for rows that are longer than the model's context.

    Such rows are padded, so that their positions are in range. A model can only check that outside of a trace.
    """
    return apply if ids.shape[1] <= model.context else apply.__wrapped__


def checked(inputs, kind, sizes, positions):
    """The arguments of a model by name, int32[B, T] each: those that are given, a mask and positions.

    Args:
        kind: what an error calls the model.
        sizes: {a name beside attention_mask that it takes: an id there is below it}, of what is unmasked.
        positions: those of a bool mask [B, T], where none are given.

    Raises:
        UserError: 3.
    """
    known = sorted({"attention_mask", *sizes})
    if "input_ids" not in inputs or not set(inputs) <= set(known):
        raise UserError(3, f"inputs {', '.join(inputs)}: {kind} takes of {', '.join(known)} any, and input_ids always")
    ids = np.asarray(inputs["input_ids"])
    found = {name: np.asarray(x) for name, x in inputs.items()}
    mask = found["attention_mask"] = np.asarray(inputs.get("attention_mask", np.ones_like(ids))) != 0
    if ids.ndim != 2 or mask.shape != ids.shape:
        raise UserError(3, f"input_ids, attention_mask: shapes {ids.shape}, {mask.shape}; both are [texts, tokens]")
    found.setdefault("position_ids", positions(mask))
    for name, size in sizes.items():
        if name in found:
            x = np.broadcast_to(found[name], ids.shape)
            found[name] = np.where(mask, x, np.clip(x, 0, size - 1))  # no token sees padding
            if wrong := sorted({int(i) for i in np.unique(x[mask]) if not 0 <= i < size}):
                raise UserError(3, f"{name}: {wrong[0]} is outside [0, {size})")
    return {name: x.astype(np.int32) for name, x in found.items()}
