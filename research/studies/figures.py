"""Figures of results: what they show is told apart by colour, by dashes and by marks, so that it reads in grey too."""

import math
from typing import NamedTuple

import numpy as np

from research import pictures

# Okabe and Ito's colours, which colour-blind people tell apart, without yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 2)))
MARKS = "os^Dvx*"
MOST = len(COLOURS)  # lines that are told apart; others are grey
ROWS = 40  # bars of a figure
WIDE = 44  # letters of a name, beyond which no two stand side by side
TICKS = 8  # of an axis that are the values themselves
GREYS = "cividis"  # its brightness rises evenly, and colour-blind people see it as others do
FORMATS = ("png", "pdf")


class Line(NamedTuple):
    """One line of a figure: a mean with its interval, or with the single runs where they are few."""

    name: str
    x: np.ndarray  # [N]
    mean: np.ndarray  # [N]
    low: np.ndarray | None = None  # [N]; None where no interval is known
    high: np.ndarray | None = None
    runs: tuple[tuple[np.ndarray, np.ndarray], ...] = ()  # (x, y) of each run


def save(figure, stem):
    """Writes stem.png and stem.pdf."""
    for kind in FORMATS:
        pictures.save(figure, f"{stem}.{kind}", kind)


def is_log(values, span=10):
    """Whether values are above 0 and the largest is some times the smallest, so that a log axis shows them better."""
    return min(values) > 0 and max(values) >= span * min(values)


def curves(lines, x, y):
    """Lines over steps, with a band where an interval is known and thin lines of the runs elsewhere; of one step, marks
    with an error bar.

    Args:
        lines: of Line; those after the first MOST are grey.
        x, y: the axes' labels.
    """
    figure, axes = _axes(x, y)
    bottom = _bottom(lines)
    mark = lambda i: _mark(i) if len(lines[i].x) == 1 else None
    for i, line in reversed(list(enumerate(lines))):
        style = _style(i)
        axes.plot(line.x, line.mean, marker=mark(i), linewidth=1.8, zorder=3 if i < MOST else 1, **style)
        if i >= MOST:
            continue
        if line.low is not None and mark(i):
            _error_bars(axes, line, bottom, style)
        elif line.low is not None:
            axes.fill_between(
                line.x, np.maximum(line.low, bottom), line.high, color=style["color"], alpha=0.2, linewidth=0, zorder=2
            )
        elif len(line.runs) > 1:
            for run in line.runs:
                axes.plot(*run, marker=mark(i), markersize=3, linewidth=0.6, alpha=0.6, zorder=1, **style)
    axes.xaxis.get_major_locator().set_params(integer=True)  # there is no half a step
    _finish(figure, axes, lines, bottom, mark)
    return figure


def against(lines, x, y, joined=True):
    """A metric against a number of the config: a line for each choice of the others, its runs as points.

    Args:
        joined: whether a line's means are joined: not, where they differ in more than this number.
    """
    figure, axes = _axes(x, y)
    bottom = _bottom(lines)
    for i, line in reversed(list(enumerate(lines))):
        style = _style(i)
        mark = _mark(i)
        style |= {} if joined else {"linestyle": "none"}
        axes.plot(line.x, line.mean, marker=mark, markersize=6, zorder=3 if i < MOST else 1, **style)
        if line.low is not None:
            _error_bars(axes, line, bottom, style)
        for run in line.runs:
            axes.plot(*run, linestyle="none", marker=mark, markersize=3, color=style["color"], alpha=0.4, zorder=1)
    places = sorted({value for line in lines for value in line.x.tolist()})
    if is_log(places, 4):
        axes.set_xscale("log")
    if len(places) <= TICKS:
        axes.set_xticks(places, [f"{value:g}" for value in places])
        axes.set_xticks([], minor=True)
    _finish(figure, axes, lines, bottom, _mark)
    return figure


def front(points, chosen, x, y, rising):
    """Points of two objectives, and the bound of what those on the front reach.

    Args:
        points: [(x, y)].
        chosen: the numbers of those on the front.
        rising: whether a higher x is better.
    """
    figure, axes = _axes(x, y)
    others = [point for i, point in enumerate(points) if i not in chosen]
    best, steps = sorted(points[i] for i in chosen), "steps-pre" if rising else "steps-post"
    if others:
        axes.plot(*zip(*others), linestyle="", marker=_mark(1), color="0.6", label="others")
    axes.plot(*zip(*best), **_style(0), marker=_mark(0), drawstyle=steps, label="the front")
    for values, scale in zip(zip(*points), (axes.set_xscale, axes.set_yscale)):
        if is_log(values):
            scale("log")
    axes.legend(frameon=False)
    return figure


def heat_map(rows, columns, values, texts, labels):
    """A metric over two fields of the config.

    Args:
        rows, columns: their values as texts.
        values: float[R, C], nan where there is none.
        texts: [R][C], what stands in each place.
        labels: of rows, columns and colours.
    """
    figure = pictures.new_figure(min(16, 2.5 + 1.2 * len(columns)), min(16, 1.8 + 0.5 * len(rows)))
    axes = figure.subplots()
    drawn = axes.imshow(values, cmap=GREYS, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    low, high = np.nanmin(values), np.nanmax(values)
    room = len(columns) <= 11 and len(rows) <= 28  # else the texts would lie on each other
    for (i, j), value in np.ndenumerate(values) if room else ():
        dark = value < (low + high) / 2
        axes.text(j, i, texts[i][j], ha="center", va="center", color="white" if dark else "black", parse_math=False)
    axes.set_ylabel(labels[0], parse_math=False)
    axes.set_xlabel(labels[1], parse_math=False)
    figure.colorbar(drawn, label=labels[2])
    return figure


def parallel(names, points):
    """Parallel coordinates: a vertical axis for each field of the config and, last, for a metric, by which the lines
    are coloured.

    Args:
        names: of the axes.
        points: of each point its values, numbers or texts, one an axis; the first lie on top.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure = pictures.new_figure(2.2 + 1.8 * len(names), 4.2)
    axes = figure.subplots()
    values = [point[-1] for point in points]
    colours = ScalarMappable(Normalize(min(values), max(values)), colormaps[GREYS])
    heights = []
    for i, column in enumerate(zip(*points)):
        height, ticks = _heights(column)
        heights.append(height)
        axes.axvline(i, color="0.6", linewidth=1)
        for at, text in ticks:
            place = {"xytext": (4, 2), "textcoords": "offset points", "zorder": 3}
            around = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
            axes.annotate(text, (i, at), fontsize=8, bbox=around, parse_math=False, **place)
    for line, value in reversed(list(zip(zip(*heights), values))):
        axes.plot(range(len(names)), line, color=colours.to_rgba(value), alpha=0.9, linewidth=1.6)
    axes.set_xticks(range(len(names)), names, parse_math=False)
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(names) - 0.3)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    return figure


def bars(names, means, intervals, points, label):
    """A bar for each name, with its interval where one is known and each run as a point.

    Args:
        means: float[N].
        intervals: of each (low, high), or None.
        points: of each the values of its runs.
    """
    figure = pictures.new_figure(5 + 0.08 * max(map(len, names)), 1.2 + 0.34 * len(names))
    axes = figure.subplots()
    places = np.arange(len(names))
    every = [value for own in points for value in own] + [bound for pair in intervals if pair for bound in pair]
    low, high = min(every), max(every)
    # Bars from 0 would be all alike where the values are close together.
    cut = low > 0 and high - low < low
    axes.barh(places, means, color="#56B4E9", alpha=0.5, height=0.7)
    for place, mean, interval, own in zip(places, means, intervals, points):
        if interval:
            errors = [[mean - interval[0]], [interval[1] - mean]]
            axes.errorbar([mean], [place], xerr=errors, fmt="none", color="black", capsize=4, linewidth=1.4)
        beside = place + np.linspace(-0.2, 0.2, len(own) + 2)[1:-1]  # runs of the same value stay two points
        axes.plot(own, beside, linestyle="none", marker="o", markersize=4, color="#D55E00")
    if cut:
        margin = 0.08 * (high - low) or 0.01 * high
        axes.set_xlim(low - margin, high + margin)
    axes.set_yticks(places, names, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel(label + (" (the axis does not begin at 0)" if cut else ""), parse_math=False)
    axes.grid(axis="x", alpha=0.3)
    return figure


def _axes(x, y):
    figure = pictures.new_figure(7.5, 4.2)
    axes = figure.subplots()
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    axes.grid(alpha=0.3)
    return figure, axes


def _style(i):
    if i >= MOST:
        return {"color": "0.75", "linestyle": "-"}
    return {"color": COLOURS[i], "linestyle": DASHES[i]}


def _bottom(lines):
    """Where a log axis ends below, if the means ask for one: an interval may reach below 0. Else -inf."""
    if not is_log([value for line in lines for value in line.mean]):
        return -math.inf
    return 0.7 * min(
        value for line in lines for y in (line.mean, *(y for _, y in line.runs)) for value in y if value > 0
    )


def _error_bars(axes, line, bottom, style):
    errors = [line.mean - np.maximum(line.low, bottom), line.high - line.mean]
    axes.errorbar(line.x, line.mean, errors, fmt="none", capsize=3, color=style["color"], zorder=2)


def _mark(i):
    return MARKS[i] if i < MOST else "."


def _finish(figure, axes, lines, bottom, mark):
    """A log axis where there is a bottom to it, and the legend, which also tells how many lines are grey."""
    from matplotlib.lines import Line2D

    if bottom > 0:
        axes.set_yscale("log")
        axes.set_ylim(bottom=bottom)
    if len(lines) == 1:
        axes.set_title(_plain(lines[0].name), fontsize=10)
        return
    names = [_plain(line.name) for line in lines[:MOST]] + [f"{len(lines) - MOST} others"] * (len(lines) > MOST)
    handles = [Line2D([], [], label=name, marker=mark(i), **_style(i)) for i, name in enumerate(names)]
    short = len(names) > 3 and max(map(len, names)) <= WIDE
    figure.legend(handles=handles, loc="outside lower center", ncols=2 if short else 1, fontsize=9)


def _plain(text):
    """A text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def _heights(column):
    """Where a column's values stand between 0 and 1, and its ticks [(height, text)]."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in column)
    if not numbers:
        known = list(dict.fromkeys(map(str, column)))
        at = {text: i / max(1, len(known) - 1) for i, text in enumerate(known)}
        return [at[str(value)] for value in column], [(at[text], text) for text in known]
    scale, back = (math.log, math.exp) if is_log(column) else (float, float)
    low, high = scale(min(column)), scale(max(column))
    height = lambda value: (scale(value) - low) / (high - low) if high > low else 0.5
    shown = sorted(set(column))
    if len(shown) > TICKS:
        shown = [back(low + (high - low) * i / (TICKS - 1)) for i in range(TICKS)]
    return [height(value) for value in column], [(height(value), f"{value:.4g}") for value in shown]
