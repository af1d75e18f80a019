"""Which points a sweep has: lists of {dotted.path: value}, made and combined by pure functions; and their trials."""

import hashlib
import itertools
import json
import math
import re
from typing import Any, NamedTuple

from research import config as configs
from research import warm_start
from research.errors import UserError, pick, users_code
from research.fields import brief, split, text_of
from research.randomness import generator

MANY = 10_000  # points, beyond which a sweep is more likely a slip than meant


def axis(path, values):
    """One point for each value of a field."""
    return [{path: value} for value in values]


def product(*sweeps):
    """Every point of each sweep with every point of the others; the last one's change fastest.

    Raises:
        UserError: 2, where two of them set the same path.
    """
    return [_joined(points) for points in itertools.product(*sweeps)]


def together(*sweeps):
    """The first points of all sweeps as one, the second points as one, and so on.

    Raises:
        UserError: 2, where they are of different lengths or set the same path.
    """
    if len({len(sweep) for sweep in sweeps}) > 1:
        lengths = ", ".join(f"{len(sweep)} of {', '.join(_paths(sweep)) or 'nothing'}" for sweep in sweeps)
        raise UserError(2, f"together: sweeps of different lengths: {lengths}; give as many points in each")
    return [_joined(points) for points in zip(*sweeps)]


def starts(run, random_rate=None):
    """What pretraining brings: random parameters and those of a run, both with the tokenizer of this one.

    Args:
        random_rate: the learning rate of random parameters, where it is not that of the config: at the one that is best
            for pretrained ones they may reach less than they can, and pretraining would seem to bring more than it did.
    """
    tokenizer = {"data.tokenizer": f"{run}/tokenizer.json"}
    own = {} if random_rate is None else {"optimizer.learning_rate": random_rate}
    return [{**tokenizer, **own}, {**tokenizer, "init_from": run}]


def chain(*sweeps):
    """The points of one sweep after those of another."""
    return [dict(point) for sweep in sweeps for point in sweep]


def sample(count, distributions, seed=0):
    """Points drawn at random, each path by its own stream: more points begin with the same ones.

    Args:
        distributions: {path: uniform(...), log_uniform(...) or choice(...)}.
    """
    streams = {path: generator(seed, f"sweep {path}") for path in distributions}
    return [{path: draw(streams[path]) for path, draw in distributions.items()} for _ in range(count)]


def uniform(low, high):
    """Between two numbers; whole ones, both included, where both are."""
    if not low <= high:
        raise UserError(2, f"uniform: {low} to {high}: the lower bound comes first")
    if isinstance(low, int) and isinstance(high, int):
        return lambda rng: int(rng.integers(low, high + 1))
    return lambda rng: float(rng.uniform(low, high))


def log_uniform(low, high):
    """Uniform in the logarithm: as many points between 1e-4 and 1e-3 as between 1e-3 and 1e-2."""
    if not 0 < low <= high:
        raise UserError(2, f"log_uniform: {low} to {high}: two numbers above 0 are needed, the lower one first")
    return lambda rng: math.exp(rng.uniform(math.log(low), math.log(high)))


def choice(*values):
    """One of these."""
    if not values:
        raise UserError(2, "choice: of nothing; give values")
    return lambda rng: values[int(rng.integers(len(values)))]


def parse_axis(text):
    """--axis=path=1e-4,1e-3 or path=0:5, Python's range; a tuple's own values in brackets, as (conv8,pool2),(conv8).

    Raises:
        UserError: 2.
    """
    path, equals, values = text.removeprefix("config.").partition("=")
    if not equals or not values.strip():
        raise UserError(2, f"--axis={text}: not of the form path=value,value, as optimizer.learning_rate=1e-4,1e-3")
    found = []
    for item in split(values):
        if bounds := re.fullmatch(r"(-?\d+):(-?\d+)", item):
            numbers = range(int(bounds[1]), int(bounds[2]))
            if len(numbers) > 100 * MANY:
                raise UserError(2, f"--axis={text}: {len(numbers):,} values; give fewer")
            found += numbers
        else:
            found.append(item[1:-1] if re.fullmatch(r"\(.*\)", item) else item)
    if not found:
        raise UserError(2, f"--axis={text}: has no value")
    return axis(path, found)


def points_of(defined, names, axes, overrides=(), limit=math.inf):
    """The points that a command line asks for: the product of the named sweeps and the axes.

    Args:
        defined: what the config file defines, {name: value}; its functions sweep_<name>() are sweeps, that give points.
        names: of those that are asked for, without sweep_.
        axes: texts of --axis.
        overrides: paths that --config.<path> has set.
        limit: how many points there may be.

    Raises:
        UserError: 2.
    """
    sweeps = []
    named = {name.removeprefix("sweep_"): value for name, value in defined.items() if name.startswith("sweep_")}
    for name in names:
        if not named:
            raise UserError(2, f"--sweep={name}: the config file has no sweep_<name>()")
        function = pick(named, name, "--sweep")
        with users_code(f"--sweep={name}", __file__):
            sweeps.append(_points(name, function))
    sweeps += map(parse_axis, axes)
    if not sweeps:
        raise UserError(2, "--sweep or --axis: needed, as --axis=seed=0:3" + _listed(named))
    if (count := math.prod(map(len, sweeps))) > limit:
        raise UserError(2, f"--axis: {count:,} points are more than {limit:,}; --yes runs them")
    points = product(*sweeps)
    for path in _paths(points):
        if path in overrides:
            raise UserError(2, f"--config.{path}: given beside an axis of it; leave one out")
    return points


class Trial(NamedTuple):
    """One point of a sweep, and the run that it asks for."""

    name: str  # of its folder
    overrides: dict[str, Any]  # as the config has them
    config: Any  # complete
    steps: int | None = None  # of the run, once its data are known


def trials_of(config, points, given=()):
    """The trials of a sweep, and how many points were left out since another one has the same config.

    Args:
        config: complete, as command.load_config returns it.
        points: {path: value} each.
        given: paths that --config.<path> has set; see warm_start.adopt.

    Raises:
        UserError: 2, for a path that is not in the config or a value of the wrong type.
    """
    found, paths = {}, _paths(points)
    for point in points:
        complete = configs.override(config, point)
        if {"init_from", "model.name"} & set(point):  # else the model has the form of config.init_from already
            complete = warm_start.adopt(complete, {*given, *point})
        overrides = {path: configs.value(complete, path) for path in paths if path in point}
        text = json.dumps(configs.to_json(complete), sort_keys=True)
        found.setdefault(text, Trial(_name(overrides, paths), overrides, complete))
    return list(found.values()), len(points) - len(found)


def as_lines(trials):
    """A table of the trials: a line for its head, and one for each."""
    paths = _paths([trial.overrides for trial in trials])
    rows = [("trial", *paths)]
    for number, trial in enumerate(trials, start=1):
        values = (text_of(trial.overrides[path]) if path in trial.overrides else "" for path in paths)
        rows.append((str(number), *values))
    return aligned(rows)


def aligned(rows):
    """Rows of words as lines, each column as wide as its widest word."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows]


def _name(overrides, paths):
    """learning_rate=0.001,seed=0_5c1d2f3a4b: for a reader, and a digest that tells all points apart."""
    leaf = lambda path: path.removesuffix(".name").rsplit(".", 1)[-1]
    leaves = [leaf(path) for path in paths]
    short = lambda path: path if leaves.count(leaf(path)) > 1 else leaf(path)
    words = ",".join(f"{short(path)}={brief(value)}" for path, value in overrides.items()) or "base"
    digest = hashlib.sha256(json.dumps(overrides, sort_keys=True).encode()).hexdigest()[:10]
    return f"{re.sub(r'[^A-Za-z0-9.,=+-]', '_', words)[:100]}_{digest}"


def _joined(points):
    """Several points as one."""
    joined = {}
    for point in points:
        for path in point:
            if path in joined:
                raise UserError(2, f"config.{path}: two axes of it; give one")
        joined |= point
    return joined


def _paths(points):
    """The paths that points set, in the order in which they come up."""
    return list(dict.fromkeys(path for point in points for path in point))


def _points(name, function):
    """What a config file's sweep_<name>() gives; its mistakes name it."""
    try:
        points = function()
        if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
            raise UserError(2, "gives no list of {path: value}")
        if not points:
            raise UserError(2, "has no point")
        return points
    except UserError as error:
        raise UserError(2, f"--sweep={name}: {error}") from error


def _listed(named):
    return f"; the config file has the sweeps {', '.join(sorted(named))}" if named else ""
