"""What is searched and what for: search_space() and search_objectives() of a config file, as plain data.

    def search_space():
        return {
            "optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "model.layers": {"low": 1, "high": 4},  # whole numbers, both included
            "data.batch_size": {"choices": (32, 64, 128)},
        }

    def search_objectives():
        return [{"metric": "accuracy", "direction": "max"}, {"metric": "parameters", "split": "", "direction": "min"}]

Without search_objectives() it is the metric on validation by which the config judges its checkpoints.
"""

import json
import math
from typing import NamedTuple

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from research import config as configs
from research.errors import UserError, pick, users_code
from research.fields import text_of
from research.metrics import direction_of
from research.studies.sweep import aligned, trials_of

RUN_METRICS = ("parameters", "seconds")  # of a result, with no split
SAMPLERS = ("grid", "random", "tpe", "cmaes", "qmc")
PRUNERS = {
    "median": optuna.pruners.MedianPruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}


class Objective(NamedTuple):
    metric: str
    direction: str  # min or max
    split: str = "validation"  # "" of what no split has: parameters, seconds

    @property
    def name(self):
        return f"{self.split}/{self.metric}" if self.split else self.metric


class Asked(NamedTuple):
    """What a search is of."""

    space: dict[str, dict]
    objectives: list[Objective]
    sampler: str
    pruner: str | None

    def as_json(self):
        own = self._asdict() | {"objectives": [objective._asdict() for objective in self.objectives]}
        return json.loads(json.dumps(own))


def read(defined, config, sampler, pruner):
    """The search that a config file and a command line ask for.

    Args:
        defined: what the config file defines, {name: value}.
        sampler: one of SAMPLERS.
        pruner: one of PRUNERS, or None.

    Raises:
        UserError: 2.
    """
    pick(dict.fromkeys(SAMPLERS), sampler, "--search")
    if pruner is not None:
        pick(PRUNERS, pruner, "--prune")
    if "search_space" not in defined:
        raise UserError(2, f"--search={sampler}: the config file has no search_space()")
    with users_code("search_space()", __file__):
        space = defined["search_space"]()
        if not isinstance(space, dict) or not space:
            raise UserError(2, "search_space(): gives no {path: what is searched}")
    space = {path: _typed(config, path, entry) for path, entry in space.items()}
    default = {"metric": config.eval.metric, "direction": config.eval.direction}
    with users_code("search_objectives()", __file__):
        found = defined.get("search_objectives", lambda: [default])()
        objectives = [Objective(**entry) for entry in found]
    if not objectives:
        raise UserError(2, "search_objectives(): gives none")
    for objective in objectives:
        place = f"search_objectives(): {objective.metric}"
        pick({"min": 0, "max": 0}, objective.direction, f"{place}: direction")
        if objective.direction != (known := direction_of(objective.metric) or objective.direction):
            raise UserError(2, f"{place}: direction {objective.direction} would search for the worst; give {known}")
        if objective.metric in RUN_METRICS and objective.split:
            raise UserError(2, f"{place}: of a run, and of no split; give split ''")
        if objective.metric not in RUN_METRICS and objective.split != "validation":
            raise UserError(2, f"{place}: split {objective.split!r}: chosen is by validation; test is for reporting")
    if pruner and (len(objectives) > 1 or objectives[0].split != "validation"):
        raise UserError(2, f"--prune={pruner}: goes by one objective, on validation; search_objectives() has others")
    if sampler == "grid":
        grid(space)
    return Asked(space, objectives, sampler, pruner)


def _typed(config, path, entry):
    """An entry with bounds of its field's type: of a rate 0 to 1 is no choice of two, and layers are whole.

    Raises:
        UserError: 2, for one that is no entry, or no value of the field.
    """
    distribution(path, entry)
    if "choices" in entry:
        return entry
    try:
        read = lambda value: configs.value(configs.override(config, {path: value}), path)
        bounds = {name: read(entry[name]) for name in ("low", "high")}
    except UserError as error:
        raise UserError(2, f"search_space(): {error}") from error
    step = {"step": type(bounds["low"])(entry["step"])} if entry.get("step") is not None else {}
    return {**entry, **bounds, **step}


def distribution(path, entry):
    """A path's entry in a search space as Optuna has it.

    Raises:
        UserError: 2.
    """
    place = f"search_space(): {path}"
    if not isinstance(entry, dict) or set(entry) - {"choices", "low", "high", "log", "step"}:
        raise UserError(2, f"{place}: {entry!r} is none of {{choices}} and {{low, high, log, step}}")
    if "choices" in entry:
        if len(entry) > 1 or not isinstance(entry["choices"], (list, tuple)) or not entry["choices"]:
            raise UserError(2, f"{place}: {entry!r}: choices are some values, and stand alone")
        return CategoricalDistribution(list(map(_plain, entry["choices"])))
    try:
        low, high, log, step = entry["low"], entry["high"], entry.get("log", False), entry.get("step")
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log, step=1 if step is None else step)
        return FloatDistribution(low, high, log=log, step=step)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(2, f"{place}: {entry!r}: {error}") from error


def _plain(value):
    """A value that Optuna can keep: a tuple as the text that a config reads back."""
    return text_of(tuple(value)) if isinstance(value, (list, tuple)) else value


def grid(space):
    """{path: values} of a space of which all points can be counted.

    Raises:
        UserError: 2.
    """
    found = {}
    for path, entry in space.items():
        known = distribution(path, entry)
        if isinstance(known, CategoricalDistribution):
            found[path] = list(known.choices)
        elif known.step is not None and not known.log:
            count = math.floor((known.high - known.low) / known.step + 1e-9) + 1
            found[path] = [known.low + i * known.step for i in range(count)]
        else:
            raise UserError(2, f"--search=grid: search_space(): {path}: needs choices, or a step and no log")
    return found


def as_lines(asked):
    """The space and what is searched for, for people."""
    rows = [("path", "values"), *((path, _words(distribution(path, entry))) for path, entry in asked.space.items())]
    wanted = ", ".join(f"{objective.name} ({objective.direction})" for objective in asked.objectives)
    return [*aligned(rows), f"objective {wanted}" + (f", pruned by {asked.pruner}" if asked.pruner else "")]


def _words(known):
    if isinstance(known, CategoricalDistribution):
        return ", ".join(map(text_of, known.choices))
    step = f", step {known.step}" if known.step not in (None, 1) else ""
    return f"{known.low} to {known.high}" + step + ", log" * known.log


def corners(plan, asked):
    """Trials whose checks show that a space fits its config: what all have in common, the ends of each path's values,
    each by itself."""
    points = [{}]
    for path, entry in asked.space.items():
        known = distribution(path, entry)
        ends = known.choices if isinstance(known, CategoricalDistribution) else (known.low, known.high)
        points += [{path: value} for value in ends]
    try:
        return trials_of(plan.config, points)[0]
    except UserError as error:
        raise UserError(2, f"search_space(): {error}") from error
