"""Initialises a run with the parameters of another run, or with weights in Hugging Face's layout (config.init_from)."""

import dataclasses
from typing import Any, NamedTuple

from research import config as configs
from research import pretrained, runs
from research.checkpoint import read_best, warm_start
from research.data import hub, tokenize
from research.errors import UserError
from research.models import MODELS


class Start(NamedTuple):
    """The model and the variables that config.init_from names."""

    model: Any  # Linen module
    variables: Any  # {"params": ..., collection: ...}
    prefixes: tuple[str, ...]  # of the parameter paths to copy; () copies all
    labels: tuple[str, ...]  # names of the classes that its head predicts; () if unknown

    def compared(self, model, labels, matched):
        """Returns lines on differences that shapes do not show: fields of a model of the same type, names of classes.

        Args:
            model, labels: of the new run.
            matched: the parameter paths that are copied.

        Raises:
            UserError: 2, if a head is copied that predicts the same classes in another order.
        """
        says = []
        if self.labels not in ((), labels) and any(path.startswith("params/head") for path in matched):
            if set(self.labels) == set(labels):
                order = f"{', '.join(self.labels)} there, {', '.join(labels)} here"
                raise UserError(2, f"config.init_from: its head tells the classes in another order: {order}; name what "
                                   "is to be taken, :block0,block1,... behind the folder")  # fmt: skip
            says = [f"its head told {', '.join(self.labels)}, and is to tell {', '.join(labels)}"]
        if type(model) is not type(self.model):
            return says
        skipped = ("name", "parent", "classes", "vocabulary", "parts")
        fields = [field.name for field in dataclasses.fields(model) if field.name not in skipped]
        pairs = [(name, getattr(self.model, name), getattr(model, name)) for name in fields]
        return says + [
            f"config.model.{name}: {there} there, {here} here" for name, there, here in pairs if there != here
        ]


def start_from(config, dataset, model, variables):
    """Copies the parameters that config.init_from names into a new run's variables, where path and shape match.

    Args:
        dataset, model, variables: of the new run; ShapeDtypeStructs as variables only check that this will work.

    Returns:
        the variables, and lines for the log on what was copied and what was not.

    Raises:
        UserError: 2 if nothing matches, or the tokenizer or the order of the classes differs; 3 and 4 if it cannot be
            read.
    """
    start = _read_start(config.init_from, dataset.tokenizer)
    variables, matched, missed = warm_start(variables, start.variables, start.prefixes)
    taken = [f"{len(matched)} taken: {', '.join(matched)}", f"{len(missed)} not taken: {', '.join(missed) or '-'}"]
    says = taken + start.compared(model, dataset.labels, matched)
    return variables, [f"init_from {config.init_from}: {line}" for line in says]


def _read_start(init_from, tokenizer):
    """Reads a run folder, or hf:FOLDER_OR_NAME in Hugging Face's layout. A suffix :PREFIX,PREFIX selects parameters.

    Args:
        tokenizer: of the new run, which must be the same, since embeddings are per token.

    Raises:
        UserError: 2 if it has another tokenizer, 3 and 4 if it cannot be read.
    """
    foreign = init_from.startswith(hub.PREFIX)
    place, _, prefixes = init_from.removeprefix(hub.PREFIX).partition(":")
    if foreign:
        folder = hub.find(hub.PREFIX + place, "config.init_from")
        (model, variables), labels = pretrained.load(folder), pretrained.labels(folder)
        other, remedy = tokenize.read(folder) if tokenize.file_of(folder) else None, hub.PREFIX + place
    else:
        (_, variables), labels = read_best(place), runs.read_spec(place).labels
        config, other, remedy = runs.read_config(place), runs.read_tokenizer(place), f"{place}/tokenizer.json"
        model = MODELS[config.model.name](**configs.arguments("model", config))
    if other is not None and tokenizer is not None and other.digest != tokenizer.digest:
        raise UserError(2, f"config.init_from: {place} has another tokenizer; give config.data.tokenizer={remedy}")
    return Start(model, variables, tuple(prefix for prefix in prefixes.split(",") if prefix), labels)
