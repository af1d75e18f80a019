"""Initialises a run with the parameters of another run, or with weights in Hugging Face's layout (config.init_from)."""

import dataclasses
import re
from typing import NamedTuple

import jax

from research import config as configs
from research import pretrained, runs, sharding
from research.checkpoint import read_best
from research.data import hub, tokenize
from research.errors import UserError, nearest
from research.models import MODELS
from research.optimizers import path_of, stacked_like, unstacked
from research.randomness import run_key

# Fields of a model that do not change the meaning of its parameters. The new run chooses them, or its data do.
FREE = ("name", "parent", "classes", "vocabulary", "parts", "head", "dropout", "remat", "scan", "dtype")
OF_ALL = ("layers", "context", "types", "unused_rows")  # need not agree if only some parameters are copied
IMPLIED = {"hidden": lambda model: 4 * model.width, "kv_heads": lambda model: model.heads}  # values of fields left None


class Source(NamedTuple):
    """What config.init_from names: a run folder, or hf:FOLDER_OR_NAME. A suffix :PREFIX,PREFIX selects parameters."""

    text: str  # without the suffix
    foreign: bool  # in Hugging Face's layout
    prefixes: tuple[str, ...]  # of the parameter paths to copy; () copies all

    def folder(self):
        """Returns the folder, downloaded if needed."""
        return hub.find(self.text, "config.init_from") if self.foreign else self.text


def source_of(init_from):
    """Parses config.init_from."""
    scheme = hub.PREFIX * init_from.startswith(hub.PREFIX)
    place, _, prefixes = init_from.removeprefix(scheme).partition(":")
    return Source(scheme + place, bool(scheme), tuple(filter(None, prefixes.split(","))))


def adopt(config, given, workdir=None):
    """Sets the fields of the model that config.init_from determines, such as its width and its number of layers.

    Changes nothing if only some parameters are copied, or if the source's model has another type.

    Args:
        config: complete.
        given: paths that the user has set; they are kept, and compared by `start_from`.
        workdir: if it already contains this run, the fields are those it was started with.

    Returns:
        the config, locked.

    Raises:
        UserError: 2, 3 or 4 if the source's model cannot be read.
    """
    if config.init_from is None or (source := source_of(config.init_from)).prefixes:
        return config
    if workdir is not None and runs.is_begun(workdir):
        begun = runs.read_config(workdir)
        if begun.init_from != config.init_from or begun.model.name != config.model.name:
            return config  # another run, which will be refused
        there = {path: value for path, value in configs.leaves(begun).items() if path.startswith("model.")}
        there = {path: value for path, value in there.items() if path.removeprefix("model.") not in FREE}
    else:
        model = _model_of(source, source.folder())
        if type(model) is not MODELS[config.model.name]:
            return config
        there = {f"model.{field}": getattr(model, field) for field in _fields(model)}
    return configs.override(config, {path: value for path, value in there.items() if path not in given})


def start_from(config, dataset, model, variables):
    """Copies the parameters that config.init_from names into a new run's variables, where path and shape match.

    Args:
        dataset, model, variables: of the new run; ShapeDtypeStructs as variables only check that this will work.

    Returns:
        the variables, and lines for the log on what was copied and what was not.

    Raises:
        UserError: 2 if nothing matches, if the model's form, the tokenizer or the order of the classes differs, or if
            a requested parameter has another shape; 3 and 4 if the source cannot be read.
    """
    source = source_of(config.init_from)
    folder = source.folder()  # once: a name of the hub is looked up over the network
    there, others, labels = _read(source, folder)
    _check_tokenizer(source, folder, dataset.tokenizer)
    variables, matched, missed = copy_matching(variables, others, source.prefixes)
    if source.prefixes and (wrong := [path for path, reason in missed.items() if reason.startswith("shape")]):
        raise UserError(2, f"config.init_from: {wrong[0]}: {missed[wrong[0]]}")
    if type(there) is type(model) and (not source.prefixes or any("/block" in path for path in matched)):
        _check_form(source, there, model)
    says = _check_labels(labels, dataset.labels, matched)
    words = [f"{len(matched)} parameters copied"]
    if new := _groups(path for path, reason in missed.items() if reason != "not requested"):
        words.append(f"initialised here, since there is no counterpart: {', '.join(new)}")
    known = {path for path, _ in _leaves(unstacked(others))}
    if not source.prefixes and (unused := _groups(known - set(matched))):
        words.append(f"without use here: {', '.join(unused)}")
    return variables, [f"init_from {config.init_from}: {line}" for line in ("; ".join(words), *says)]


def initial_state(setup):
    """Returns the TrainState of a run at step 0, with the parameters of config.init_from, and lines for the log.

    Args:
        setup: research.setup.Setup.
    """
    placed = sharding.replicated(setup.mesh)
    state = jax.jit(setup.init, out_shardings=placed)(run_key(setup.config.seed))
    if setup.config.init_from is None:
        return state, []
    variables = {"params": state.params, **state.model_state}
    variables, lines = start_from(setup.config, setup.dataset, setup.model, variables)
    variables = sharding.place(variables, placed)
    ema = None if state.ema is None else jax.tree.map(lambda x: x + 0, variables)  # a copy: the state is donated
    return state._replace(params=variables.pop("params"), model_state=variables, ema=ema), lines


def copy_matching(variables, source, prefixes=()):
    """Copies other variables where path and shape agree. Stacked layers have the paths of single ones, such as
    block3/qkv_kernel.

    Args:
        variables, source: {"params": ..., collection: ...} of the new run, and of the other.
        prefixes: paths at or below which parameters are copied; () copies all.

    Returns:
        variables, the paths that matched, and {path: reason} of those of the new run that did not.

    Raises:
        UserError: 2 if nothing matches or a prefix names no parameter.
    """
    found = {path: value for path, value in _leaves(unstacked(source))}
    each = unstacked(variables)
    own = [path.split("/", 1)[1] for path, _ in _leaves(each)]
    for prefix in prefixes:
        if not any(_below(path, prefix) for path in own):
            known = sorted({path.split("/")[0] for path in own})
            raise UserError(2, f"config.init_from: nothing here is called {prefix}{nearest(prefix, [*known, *own])}")
    matched, missed, leaves = [], {}, []
    for path, value in _leaves(each):
        bare = path.split("/", 1)[1]
        if prefixes and not any(_below(bare, prefix) for prefix in prefixes):
            reason = "not requested"
        elif path not in found:
            reason = "not there"
        elif found[path].shape != value.shape:
            reason = f"shape {found[path].shape} there, {value.shape} here"
        else:
            matched.append(path)
            leaves.append(found[path].astype(value.dtype))
            continue
        missed[path] = reason
        leaves.append(value)
    if not matched:
        some = "; ".join(f"{path}: {reason}" for path, reason in list(missed.items())[:3])
        raise UserError(2, f"config.init_from: nothing there matches; {some}")
    taken = jax.tree.unflatten(jax.tree.structure(each), leaves)
    return stacked_like(taken, variables), matched, missed


def _fields(model):
    return [field.name for field in dataclasses.fields(model) if field.name not in FREE]


def _model_of(source, folder):
    """Reads the model of a source, without its weights."""
    if source.foreign:
        return pretrained.read_model(folder)
    if not runs.is_begun(folder):
        raise UserError(2, f"config.init_from: {folder}: no run folder: it has no config.json")
    config = runs.read_config(folder)
    return MODELS[config.model.name](**configs.arguments("model", config))


def _read(source, folder):
    """Reads a source: its model, its variables and the names of the classes that its head predicts."""
    if source.foreign:
        return *pretrained.load(folder), pretrained.labels(folder)
    _, variables = read_best(folder)
    return _model_of(source, folder), variables, runs.read_spec(folder).labels


def _check_tokenizer(source, folder, tokenizer):
    """Checks that the tokenizers are the same, since embeddings are per token.

    Raises:
        UserError: 2.
    """
    if source.foreign:
        other, remedy = tokenize.read(folder) if tokenize.file_of(folder) else None, source.text
    else:
        other, remedy = runs.read_tokenizer(folder), f"{folder}/tokenizer.json"
    if other is not None and tokenizer is not None and other.digest != tokenizer.digest:
        raise UserError(
            2, f"config.init_from: {source.text} has another tokenizer; give config.data.tokenizer={remedy}"
        )


def _check_form(source, there, here):
    """Checks that two models of one type agree in all that gives their parameters a meaning.

    Raises:
        UserError: 2, naming each field that differs.
    """
    compared = [name for name in _fields(here) if not (source.prefixes and name in OF_ALL)]
    pairs = [(name, _value(there, name), _value(here, name)) for name in compared]
    wrong = [f"config.model.{name}: {own!r}, but {other!r} there" for name, other, own in pairs if other != own]
    if wrong:
        raise UserError(
            2, f"{'; '.join(wrong)}: the weights of {source.text} would mean something else; leave it out, or set it "
            "to the same"
        )  # fmt: skip


def _value(model, name):
    value = getattr(model, name)
    return IMPLIED[name](model) if value is None and name in IMPLIED else value


def _check_labels(theirs, ours, matched):
    """Returns lines on a copied head whose classes have other names.

    Raises:
        UserError: 2, if it predicts the same classes in another order.
    """
    if theirs in ((), ours) or not any(path.startswith("params/head") for path in matched):
        return []
    if set(theirs) == set(ours):
        order = f"{', '.join(theirs)} there, {', '.join(ours)} here"
        raise UserError(2, f"config.init_from: its head predicts the classes in another order: {order}; name the "
                           "parameters to copy, as in :block0,block1,... after the folder")  # fmt: skip
    return [f"its head predicted {', '.join(theirs)}; the classes here are {', '.join(ours)}"]


def _groups(paths):
    """Returns the sorted names of the parts of a model that parameters belong to: head of head_kernel and head_bias."""
    first = (path.split("/")[1] for path in paths)
    return sorted({re.sub(r"(_norm)?_(kernel|bias|scale|embedding)$", "", name) for name in first})


def _below(path, prefix):
    """Returns whether a path is the prefix or below it: Conv_1 is not a prefix of Conv_10/kernel."""
    return f"{path}/".startswith(f"{prefix.rstrip('/')}/")


def _leaves(tree):
    return [(path_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
