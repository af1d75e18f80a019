"""Of a run of several tasks one: as if it had been trained alone."""

import inspect

from research import config as configs
from research.data import DATASETS
from research.data.mixture import lengths
from research.errors import UserError
from research.models.encoder import heads_of
from research.tasks.several import TASK_OF


def part_of(run, name):
    """A Run of several tasks as one of a single one: its data set, its task, and the model with that head.

    Args:
        name: of the data set, as config.data.parts has it, or as its fields have it.

    Raises:
        UserError: 2.
    """
    known = list(run.spec.parts)
    places = [i for i, own in enumerate(known) if name in (own, run.config.data.parts[i])]
    if not places:
        raise UserError(2, f"{run.folder}: has no part {name}; it has {', '.join(known) or 'none'}")
    (place,) = places
    own, data = known[place], run.config.data.parts[place]
    spec = run.spec.parts[own]
    head, _, kind, size = next(found for found in heads_of(run.model) if found[1] == own)
    model = run.model.clone(head=kind, classes=None if kind == "span" else size, parts=())
    others = tuple(f"{other}_" for other, *_ in heads_of(run.model) if other != head)
    kept = {key: x for key, x in run.variables["params"].items() if not key.startswith(others)}
    params = {
        "head_" + key.removeprefix(f"{head}_") if key.startswith(f"{head}_") else key: x for key, x in kept.items()
    }
    values = {"data.name": data, "task.name": TASK_OF[kind].__name__, "model.head": kind, "model.parts": ()}
    fields = inspect.signature(DATASETS[data]).parameters
    values |= {f"data.{key}": x for key, x in lengths(run.config.data.max_len).items() if key in fields}
    given = {role: run.config.data[role] for role in ("train", "validation", "test")}
    values |= {f"data.splits.{role}": texts[place] for role, texts in given.items() if texts}
    return run._replace(
        config=configs.override(run.config, values),
        model=model,
        variables={**run.variables, "params": params},
        task=TASK_OF[kind](spec),
        spec=spec,
    )
