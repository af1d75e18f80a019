"""Which figures some runs call for, and what stands in them."""

import itertools
import re

import numpy as np

from research import runs
from research.fields import brief, text_of
from research.studies import figures, gather, statistics, tables
from research.studies.statistics import FEW

PATHS = 3  # fields of which each pair has a heat map


def draw(report, folder):
    """Writes the figures of a report as PNG and PDF; {name of the files: what they show}."""
    name, (metric, direction) = report.names[0], gather.judged_by(report.groups[0])
    ranked = _ranked(report, name, gather.direction_in(report.groups, name))
    counts, made = _counts(report, name, ranked), {}

    def keep(stem, says, figure):
        stem = re.sub(r"[^A-Za-z0-9]+", "_", stem)
        figures.save(figure, folder / stem)
        made[stem] = says

    for curve, lines in _curves(report, ranked, (metric, "train/loss")).items():
        if lines:
            says = f"{tables.title(curve)} over steps; {_bands(report.spread, 'bands')}"
            keep(f"curves {curve}", says, figures.curves(lines, "step", tables.title(curve)))
    if len(ranked) > 1:
        says = f"{tables.title(name)}; points are runs, {_bands(report.spread, 'whiskers')}"
        keep(f"bars {name}", says, _bars(report, name, ranked))
    numbers, paths = _axes(report, ranked)
    for path in numbers:
        says = f"{tables.title(name)} against {path}; {_bands(report.spread, 'whiskers')}"
        lines = _against(report, name, path, ranked)
        joined = any(len(line.x) > 1 for line in lines)  # else the points are drawn at random, and share no line
        lines = lines if joined else [_joined(lines, f"all groups ({counts})")]
        keep(f"against {path}", says, figures.against(lines, path, tables.title(name), joined))
    for pair in itertools.combinations(paths[:PATHS], 2):
        # In one place stands the best on validation: to choose by the test would flatter it.
        chosen = [i for i in _ranked(report, metric, direction) if i in ranked] or ranked
        drawn = _heat_map(report, name, pair, chosen)
        if drawn:
            beside = ", of the other fields those that are best on validation" if len(paths) > 2 else ""
            keep(f"heat {' '.join(pair)}", f"{tables.title(name)} over {pair[0]} and {pair[1]}{beside}", drawn)
    if report.front:
        x, y = report.front.labels[:2]
        says = f"Pareto front of {x} and {y}: none is better in one and worse in none"
        points = list(report.front.values.items())
        chosen = [number for number, (i, _) in enumerate(points) if i in report.front.best]
        keep(f"front {x} {y}", says, figures.front([own[:2] for _, own in points], chosen, x, y, x.endswith("(max)")))
    if len(paths) > 1 and len(ranked) > 3:
        points = [[report.groups[i].differs[path] for path in paths] for i in ranked]
        points = [[value if _is_number(value) else text_of(value) for value in point] for point in points]
        values = [tables.factor_of(name) * report.summaries[i][name].mean for i in ranked]
        points = [[*point, value] for point, value in zip(points, values)]
        says = f"each group's fields, coloured by its {tables.title(name)}; {tables.MARK} fewer than {FEW} seeds"
        keep(f"parallel {name}", says, figures.parallel([*paths, f"{tables.title(name)} ({counts})"], points))
    return made


def curves(records, metric):
    """A figure of single runs' curves, each with its folder's name, and the folders of the runs without such rows.

    Args:
        metric: as train/loss.
    """
    names = [record.folder.name for record in records]
    label = lambda record: record.folder.name if names.count(record.folder.name) == 1 else str(record.folder)
    read = [(record, *_values(runs.read_rows(record.folder), metric)) for record in records]
    lines = [figures.Line(label(record), x, y) for record, x, y in read if len(x)]
    figure = figures.curves(lines, "step", tables.title(metric)) if lines else None
    return figure, [record.folder for record, x, _ in read if not len(x)]


def metrics_of(record):
    """The metrics that a run's rows have, as train/loss."""
    rows = runs.read_rows(record.folder)
    return list(
        dict.fromkeys(f"{row['split']}/{name}" for row in rows for name in row if name not in ("split", "step"))
    )


def _bands(spread, word):
    what = "the standard deviation" if spread == "std" else "95 % intervals"
    return f"{word} are {what} over seeds; {tables.MARK} fewer than {FEW}, and none drawn"


def _ranked(report, name, direction):
    """Returns the numbers of the groups that have a metric, the best first."""
    return gather.best_first({i: own[name].mean for i, own in enumerate(report.summaries) if name in own}, direction)


def _named(group):
    n = len(group.records)
    return f"{group.name} (n = {tables.seeds(n)})"


def _values(rows, metric):
    """(steps, values) of a run's rows, in the metric's unit."""
    split, _, name = metric.partition("/")
    found = {row["step"]: row[name] for row in rows if row["split"] == split and name in row}
    steps = sorted(found)
    return np.array(steps), tables.factor_of(metric) * np.array([found[step] for step in steps], np.float64)


def _curves(report, ranked, metrics):
    """{metric: lines of the groups that have it}; the rows of one group at a time are in memory."""
    lines = {metric: [] for metric in metrics}
    for group in (report.groups[i] for i in ranked):
        rows = [runs.read_rows(record.folder) for record in group.records]
        for metric, own in lines.items():
            if line := _curve(_named(group), rows, metric, report.spread):
                own.append(line)
    return lines


def _curve(name, rows, metric, spread):
    """The line of a group's runs over the steps that all of them have; None where there are none."""
    own = [_values(of_run, metric) for of_run in rows]
    steps = sorted(set.intersection(*(set(x.tolist()) for x, _ in own))) if own else []
    if not steps:
        return None
    values = np.stack([y[np.searchsorted(x, steps)] for x, y in own])  # [runs, steps]
    low, high = _interval(values, spread)
    return figures.Line(name, np.array(steps), values.mean(axis=0), low, high, tuple(own))


def _interval(values, spread):
    """Bounds at each step of float[runs, steps]; (None, None) of few runs. In place of the bootstrap's they are t's."""
    if len(values) < FEW:
        return None, None
    std = values.std(axis=0, ddof=1)
    half = std if spread == "std" else statistics.half_width(std, len(values))
    return values.mean(axis=0) - half, values.mean(axis=0) + half


def _spread(summary, spread, factor):
    """The bounds of a summary, in the metric's unit; None of few seeds."""
    if summary.n < FEW:
        return None
    bounds = {
        "t": summary.interval,
        "bootstrap": summary.bootstrap,
        "std": (summary.mean - summary.std, summary.mean + summary.std),
    }[spread]
    return factor * bounds[0], factor * bounds[1]


def _bars(report, name, ranked):
    factor, shown = tables.factor_of(name), ranked[: figures.ROWS]
    found = [report.summaries[i][name] for i in shown]
    points = [[factor * value for value in report.groups[i].values(name).values()] for i in shown]
    label = tables.title(name) + (f", best {len(shown)} of {len(ranked)}" if len(shown) < len(ranked) else "")
    bounds = [_spread(summary, report.spread, factor) for summary in found]
    means = [factor * summary.mean for summary in found]
    return figures.bars([_named(report.groups[i]) for i in shown], means, bounds, points, label)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _axes(report, ranked):
    """The fields in which the groups differ: (those of numbers alone, all of them)."""
    paths = [path for path in report.groups[0].differs if path != "config"]
    column = lambda path: [report.groups[i].differs[path] for i in ranked]
    several = [path for path in paths if len(set(map(str, column(path)))) > 1]
    return [path for path in several if all(map(_is_number, column(path)))], several


def _against(report, name, path, ranked):
    """Lines of a metric over one field, one for each choice of the others; the best first."""
    factor, found = tables.factor_of(name), {}
    for i in ranked:
        others = {other: value for other, value in report.groups[i].differs.items() if other != path}
        found.setdefault(", ".join(f"{gather.short(k)}={brief(v)}" for k, v in others.items()), []).append(i)
    lines = []
    for words, own in found.items():
        own = sorted(own, key=lambda i: report.groups[i].differs[path])
        x = np.array([report.groups[i].differs[path] for i in own], np.float64)
        mean = factor * np.array([report.summaries[i][name].mean for i in own])
        bounds = [_spread(report.summaries[i][name], report.spread, factor) or (np.nan, np.nan) for i in own]
        low, high = np.array(bounds).T
        points = [(at, factor * value) for at, i in zip(x, own) for value in report.groups[i].values(name).values()]
        counts = _counts(report, name, own)
        label = f"{words} ({counts})" if words else counts
        lines.append(figures.Line(label, x, mean, low, high, (tuple(np.array(points).T),)))
    return lines


def _joined(lines, name):
    """Lines of a point each as one."""
    x, mean, low, high = (
        np.concatenate([getattr(line, field) for line in lines]) for field in ("x", "mean", "low", "high")
    )
    return figures.Line(name, x, mean, low, high, tuple(run for line in lines for run in line.runs))


def _counts(report, name, numbers):
    """How many seeds some groups have: "n = 3", or "n ≥ 2†" where they have not as many each."""
    counts = {report.summaries[i][name].n for i in numbers}
    return f"n {'=' if len(counts) == 1 else '≥'} {tables.seeds(min(counts))}"


def _heat_map(report, name, pair, ranked):
    """A metric over two fields; None where the groups are not mostly a grid of them. Of groups that differ in other
    fields, the first of `ranked` is shown."""
    places = {}
    for i in ranked:
        places.setdefault(tuple(text_of(report.groups[i].differs[path]) for path in pair), i)
    order = lambda at: sorted({key[at] for key in places}, key=_order)
    rows, columns = order(0), order(1)
    if len(places) < 0.6 * len(rows) * len(columns):
        return None
    factor, values = tables.factor_of(name), np.full((len(rows), len(columns)), np.nan)
    texts = [["" for _ in columns] for _ in rows]
    for (row, column), i in places.items():
        summary = report.summaries[i][name]
        at = rows.index(row), columns.index(column)
        values[at] = factor * summary.mean
        texts[at[0]][at[1]] = f"{tables.figure(summary, report.spread, factor)} ({tables.seeds(summary.n)})"
    label = f"{tables.title(name)} ({_counts(report, name, ranked)})"
    return figures.heat_map(rows, columns, values, texts, (*pair, label))


def _order(text):
    """Numbers by size, before words by letter."""
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text
