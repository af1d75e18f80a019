"""Reads run folders, and tells which of them differ in their seed alone."""

import json
import pathlib
from typing import Any, NamedTuple

from research import config as configs
from research import metrics, runs
from research.errors import UserError, nearest
from research.fields import brief
from research.studies import schedule


class Record(NamedTuple):
    """A run folder, as its files tell."""

    folder: pathlib.Path
    status: str  # finished, stopped, diverged, failed; begun, waiting, unreadable, again (a seed twice)
    reason: str  # "" of a finished one
    file: str = ""  # of the config
    size: str = ""
    config: dict[str, Any] = {}  # {dotted path: value}, complete; {} where it is not known
    result: dict[str, Any] = {}  # result.json
    starts: tuple[dict, ...] = ()  # manifest.json

    @property
    def seed(self):
        return self.config["seed"]

    @property
    def metrics(self):
        """{"test/accuracy": value} of a finished run."""
        found = self.result.get("metrics", {})
        return {f"{split}/{name}": value for split, values in found.items() for name, value in values.items()}


class Group(NamedTuple):
    """Runs that differ in their seed alone."""

    name: str  # learning_rate=0.001, or the config's
    differs: dict[str, Any]  # {path: value}: what tells it from the other groups
    records: tuple[Record, ...]  # that finished, by seed
    failed: tuple[Record, ...]  # that did not

    @property
    def config(self):
        return (self.records or self.failed)[0].config

    def values(self, metric):
        """{seed: value} of the runs that have this metric, as "test/accuracy"."""
        return {record.seed: record.metrics[metric] for record in self.records if metric in record.metrics}


def read(folders):
    """Records of the runs in and below some folders, in the order of folders, trials and names.

    Raises:
        UserError: 2, for a folder in which no run is.
    """
    found = {}
    for folder in folders:
        records = _below(runs.as_folder(folder))
        if not records:
            raise UserError(2, f"{folder}: no run folder, and none is in it")
        for record in records:
            found.setdefault(record.folder.resolve(), record)
    return list(found.values())


def _below(folder):
    if runs.is_begun(folder):
        return [_record(folder)]
    if not folder.is_dir():
        return []
    plan = schedule.read_plan(folder)
    if plan and plan.trials:  # a search has none before it asks for them
        trials = [folder / trial.name for trial in plan.trials]
        waiting = lambda trial: Record(trial, "waiting", "not begun")
        return [_record(trial) if runs.is_begun(trial) else waiting(trial) for trial in trials]
    try:
        children = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError as error:
        raise UserError(2, f"{folder}: cannot be read: {error.strerror}") from error
    return [record for child in children for record in _below(child)]


def _record(folder):
    try:
        saved = runs.read_saved(folder)
        config = configs.leaves(configs.from_json(saved["config"]))
        result = runs.read_result(folder)
        starts = tuple(runs.read_json(folder / "manifest.json") or ())
        status = result.get("status", "begun")
        reason = result.get("reason", "")
        if status == "begun":
            rows = runs.read_rows(folder)
            reason = f"no result; at step {max((row['step'] for row in rows), default=0)}"
        record = Record(folder, status, reason, saved["file"], saved["size"], config, result, starts)
        if status == "finished":
            numbers = [result[key] for key in ("step", "best_step", "seconds")] + list(record.metrics.values())
            if not (starts and all(isinstance(number, (int, float)) for number in numbers)):
                raise TypeError
    except UserError as error:
        return Record(folder, "unreadable", str(error))
    except (AttributeError, TypeError, KeyError):
        return Record(folder, "unreadable", f"{folder}: its files are none of a run of ours")
    return record


def readable(records):
    """Some records, of which each could be read.

    Raises:
        UserError: 2, with the reason of the first that could not.
    """
    for record in records:
        if record.status == "unreadable":
            raise UserError(2, record.reason)
    return records


def groups(records):
    """Groups of runs that differ in their seed alone, in the order in which they come up, and the records of none."""
    found, left = {}, []
    for record in records:
        if record.config:
            found.setdefault(_key(record), []).append(record)
        else:
            left.append(record)
    paths = varied([members[0] for members in found.values()])
    result = []
    for members in found.values():
        first = members[0]
        differs = {path: _value(first, path) for path in paths}
        seeds, finished, failed = {}, [], []
        for record in members:
            if record.status == "finished" and record.seed in seeds:
                record = record._replace(
                    status="again", reason=f"the seed of {seeds[record.seed]}, in all else the same"
                )
            if record.status == "finished":
                seeds[record.seed] = record.folder
            (finished if record.status == "finished" else failed).append(record)
        name = ", ".join(f"{short(path)}={brief(value)}" for path, value in differs.items())
        finished = sorted(finished, key=lambda record: record.seed)
        result.append(Group(name or pathlib.Path(first.file).stem, differs, tuple(finished), tuple(failed)))
    return result, left


def varied(records):
    """The paths that tell configs apart, and "config" where the files or sizes are several. Arguments that come with a
    name, as a model's, are left out where the names tell all apart."""
    paths = list(dict.fromkeys(path for record in records for path in record.config if path != "seed"))
    paths = [path for path in ("config", *paths) if len({_text(record, path) for record in records}) > 1]
    if "config" in paths:  # what else differs between them is theirs
        alike = {}
        for record in records:
            alike.setdefault(_text(record, "config"), []).append(record)
        return ["config", *dict.fromkeys(path for some in alike.values() for path in varied(some))]
    for path in [path for path in paths if path not in configs.FIELDS and f"{path.split('.')[0]}.name" in paths]:
        others = [other for other in paths if other != path]
        if len({tuple(_text(record, other) for other in others) for record in records}) == len(records):
            paths = others
    return paths


def common(found):
    """{path: value} of what all groups have in common."""
    first = {path: value for path, value in found[0].config.items() if path != "seed"}
    same = lambda path, value: all(path in group.config and group.config[path] == value for group in found)
    return {path: value for path, value in first.items() if same(path, value)}


def metric_names(found):
    """The metrics of some groups' results, test before validation: ["test/accuracy", "validation/accuracy"]."""
    names = dict.fromkeys(name for group in found for record in group.records for name in record.metrics)
    return sorted(names, key=lambda name: name.split("/")[0] != "test")


def pick_metrics(found, asked):
    """The metrics that a report is of: those that are asked for, or those of the test, or of the validation.

    Raises:
        UserError: 2, for one that no run reports.
    """
    known = metric_names(found)
    for name in asked:
        if name not in known:
            raise UserError(2, f"--metrics: no run reports {name}; there are {', '.join(known)}{nearest(name, known)}")
    return list(asked) or [name for name in known if name.split("/")[0] == known[0].split("/")[0]]


def hardware(start):
    """What a run had, from its manifest's entry."""
    devices = start.get("devices") or ["cpu"]
    return start.get("machine", "") if set(devices) == {"cpu"} else f"{len(devices)} x {devices[0]}"


def judged_by(group):
    """Returns the metric on validation by which a group's checkpoints were chosen, and its direction."""
    return f"validation/{group.config['eval.metric']}", group.config["eval.direction"]


def direction_in(groups, metric):
    """Returns the direction of a metric such as test/loss; None if neither its name nor a group's config states it."""
    name = metric.split("/")[1]
    stated = (group.config["eval.direction"] for group in groups if group.config["eval.metric"] == name)
    return metrics.direction_of(name) or next(stated, None)


def best_first(means, direction):
    """Returns the keys of {key: mean of a metric}, the best first; the largest first if the direction is None."""
    return sorted(means, key=means.get, reverse=direction != "min")


def _key(record):
    config = {path: value for path, value in record.config.items() if path != "seed"}
    return json.dumps([record.file, record.size, config], sort_keys=True)


def _value(record, path):
    if path == "config":
        return f"{pathlib.Path(record.file).stem}:{record.size}"
    return record.config.get(path)


def _text(record, path):
    return json.dumps(_value(record, path))


def short(path):
    """optimizer.learning_rate -> learning_rate, model.name -> model"""
    return path.removesuffix(".name").rsplit(".", 1)[-1]
