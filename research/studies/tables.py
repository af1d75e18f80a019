"""Tables of results: numbers rounded by their uncertainty, as text, Markdown, LaTeX and CSV."""

import csv
import io
import math
import re
from typing import Any, NamedTuple

from research import metrics
from research.studies.statistics import FEW
from research.studies.sweep import aligned

MARK = "†"  # of fewer than FEW seeds
SPREADS = {
    "t": "± is the 95 % interval of the mean by Student's t",
    "bootstrap": "[ ] is the 95 % interval of the mean by the bootstrap (BCa)",
    "std": "± is the standard deviation over seeds (n - 1)",
}
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "±": r"$\pm$", MARK: r"$\dagger$", "\n": " ",
}  # fmt: skip


class Cell(NamedTuple):
    text: str
    bold: bool = False
    sort: Any = None  # by which a page sorts; its text, if not given
    group: int | None = None  # whose number it is
    link: Any = None  # a folder


class Table(NamedTuple):
    head: list[str]
    rows: list[list[Cell]]
    notes: list[str]  # what stands below
    words: int  # columns of words, which come before those of numbers


def rounded(value, uncertainty):
    """A value and its uncertainty as texts, to the digits that the uncertainty gives a meaning.

    Particle Data Group, Review of Particle Physics, introduction, section 5.3: two digits of an uncertainty whose first
    three are at most 354, else one. Without an uncertainty a value has four digits.
    """
    if not uncertainty or uncertainty < 1e-9 * abs(value):
        return _fixed(value, 3 - _exponent(value)) if value else "0", "0"
    exponent = _exponent(uncertainty)
    decimals = (1 if round(uncertainty / 10.0 ** (exponent - 2)) <= 354 else 0) - exponent
    return _fixed(value, decimals), _fixed(uncertainty, decimals)


def figure(summary, spread="t", factor=1.0):
    """The mean of a summary with its spread: "98.9 ± 0.5", in the unit that is `factor` times as small."""
    mean = factor * summary.mean
    if summary.std is None:
        return rounded(mean, None)[0]
    if spread == "bootstrap":
        low, high = (factor * bound for bound in summary.bootstrap)
        middle, low, high = (rounded(value, (high - low) / 2)[0] for value in (mean, low, high))
        return f"{middle} [{low}, {high}]"
    half = factor * (summary.std if spread == "std" else summary.interval[1] - summary.mean)
    return " ± ".join(rounded(mean, half))


def seeds(n):
    """How many seeds there are, marked where they are few."""
    return f"{n}{MARK if n < FEW else ''}"


def title(metric):
    """test/accuracy -> test accuracy, %"""
    split, _, name = metric.partition("/")
    words, unit, _ = metrics.shown(name)
    return f"{split} {words}" + (f", {unit}" if unit else "")


def factor_of(metric):
    return metrics.shown(metric.partition("/")[2])[2]


def probability(p):
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def clock(seconds):
    """1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def as_lines(table):
    """A table for a terminal: lines, what is bold elsewhere marked *."""
    rows = [table.head, *([cell.text + " *" * cell.bold for cell in row] for row in table.rows)]
    return [*aligned(rows), "", *(note.replace("Bold:", "*:") for note in table.notes)]


def markdown(table):
    """Lines of GitHub's Markdown."""
    escaped = lambda text: re.sub(r"([\\|*`<])", r"\\\1", text).replace("\n", " ")
    shown = lambda cell: f"**{escaped(cell.text)}**" if cell.bold else escaped(cell.text)
    body = [map(escaped, table.head), ["---"] * len(table.head), *(map(shown, row) for row in table.rows)]
    notes = [line for note in table.notes for line in ("", escaped(note))]
    return [f"| {' | '.join(row)} |" for row in body] + notes


def latex(table):
    """Lines of a tabular in booktabs' rules, its notes as comments."""
    shown = lambda cell: rf"\textbf{{{as_latex(cell.text)}}}" if cell.bold else as_latex(cell.text)
    rows = [" & ".join(map(shown, row)) + r" \\" for row in table.rows]
    columns = "l" * table.words + "r" * (len(table.head) - table.words)
    return [
        r"% \usepackage{booktabs}",
        *(f"% {note}".replace("\n", " ") for note in table.notes),
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(as_latex, table.head)) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def as_latex(text):
    return "".join(LATEX.get(letter, letter) for letter in text)


def as_csv(head, rows):
    """Lines of CSV; None is an empty field, and numbers have all their digits."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([head, *rows])
    return file.getvalue().splitlines()


def _exponent(value):
    return math.floor(math.log10(abs(value))) if value else 0


def _fixed(value, decimals):
    return f"{round(value, decimals):.{max(0, decimals)}f}"
