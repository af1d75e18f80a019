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
    found = [known for known, spec in run.spec.parts.items() if name in (known, spec.name)]
    if not found:
        raise UserError(2, f"{run.folder}: has no part {name}; it has {', '.join(run.spec.parts) or 'none'}")
    own, spec = found[0], run.spec.parts[found[0]]
    head, _, kind, size = next(known for known in heads_of(run.model) if known[1] == own)
    model = run.model.clone(head=kind, classes=None if kind == "span" else size, parts=())
    others = tuple(f"{known}_" for known, *_ in heads_of(run.model) if known != head)
    kept = {key: x for key, x in run.variables["params"].items() if not key.startswith(others)}
    params = {
        "head_" + key.removeprefix(f"{head}_") if key.startswith(f"{head}_") else key: x for key, x in kept.items()
    }
    values = {"data.name": spec.name, "task.name": TASK_OF[kind].__name__, "model.head": kind, "model.parts": ()}
    fields = inspect.signature(DATASETS[spec.name]).parameters
    values |= {f"data.{key}": x for key, x in lengths(run.config.data.max_len).items() if key in fields}
    number = list(run.spec.parts).index(own)
    given = {role: run.config.data[role] for role in ("train", "validation", "test")}
    values |= {f"data.splits.{role}": texts[number] for role, texts in given.items() if texts}
    return run._replace(
        config=configs.override(run.config, values),
        model=model,
        variables={**run.variables, "params": params},
        task=TASK_OF[kind](spec),
        spec=spec,
    )
