"""Takes a new run's parameters from another run or from weights in Hugging Face's layout: config.init_from."""

import dataclasses
from typing import Any, NamedTuple

from research import config as configs
from research import pretrained, runs
from research.checkpoint import read_best, warm_start
from research.data import hub, tokenize
from research.errors import UserError
from research.models import MODELS


class Start(NamedTuple):
    """What config.init_from names."""

    model: Any  # Linen module
    variables: Any  # {"params": ..., collection: ...}
    prefixes: tuple[str, ...]  # of the paths that are asked for; () for all
    labels: tuple[str, ...]  # names of the classes that its head tells; () where they have none

    def compared(self, model, labels, matched):
        """Lines on what differs though shapes do not show it: fields of a model of the same kind, names of classes.

        Args:
            labels: of the new run.
            matched: the paths that are taken.

        Raises:
            UserError: 2, for a head that is taken and tells the same classes in another order.
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
    """What config.init_from names, taken over where it fits: a new run's variables, and lines that say what was.

    Args:
        dataset, model, variables: of the new run; variables may be ShapeDtypeStructs, where all this is but checked.

    Raises:
        UserError: 2 where nothing fits, or what fits is of another tokenizer or order of classes; 3 and 4 where it
            cannot be read.
    """
    start = _read_start(config.init_from, dataset.tokenizer)
    variables, matched, missed = warm_start(variables, start.variables, start.prefixes)
    taken = [f"{len(matched)} taken: {', '.join(matched)}", f"{len(missed)} not taken: {', '.join(missed) or '-'}"]
    says = taken + start.compared(model, dataset.labels, matched)
    return variables, [f"init_from {config.init_from}: {line}" for line in says]


def _read_start(init_from, tokenizer):
    """Reads FOLDER of a run, or hf:FOLDER_OR_NAME in Hugging Face's layout; :PREFIX,PREFIX behind it takes a part.

    Args:
        tokenizer: of the new run: of other tokens the embeddings there would say nothing.

    Raises:
        UserError: 2 where it has another tokenizer, 3 and 4 where it cannot be read.
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
