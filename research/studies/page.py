"""The page of a report: one file of HTML with everything in it."""

import base64
import os
import pathlib
import shlex
import sys
import urllib.parse

import jinja2

from research.fields import text_of
from research.studies import gather, tables
from research.studies.figures import FORMATS

TEMPLATE = pathlib.Path(__file__).with_suffix(".html")


def make(report, shown, drawn, beside, output):
    """The page's text.

    Args:
        report: research.studies.report.Report.
        shown: {"results": Table, "comparisons": Table where there are any, "details": Table of every statistic}.
        drawn: {name of a figure's files: what it shows}.
        beside: the folder in which the figures are.
        output: the folder in which the page will stand.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["url"] = lambda folder: _link(folder, output)
    figures = [
        {"says": says, "files": [f"{stem}.{kind}" for kind in FORMATS], "data": _data(beside / f"{stem}.png")}
        for stem, says in drawn.items()
    ]
    groups = [
        {
            "name": group.name,
            "differs": [(path, text_of(value)) for path, value in group.differs.items() if path != "config"],
            "runs": runs_table(report, group),
        }
        for group in report.groups
    ]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        runs=sum(len(group.records) for group in report.groups),
        groups=groups,
        command=_command([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        failed=report.failed,
        notes=report.notes,
        results=shown["results"],
        comparisons=shown.get("comparisons"),
        figures=figures,
        details=shown["details"],
        common=[(path, text_of(value)) for path, value in gather.common(report.groups).items()],
    )


def runs_table(report, group):
    """Where each run of a group is, what it reached, and what made it."""
    head = [
        "run",
        "seed",
        *map(tables.title, report.names),
        "best step",
        "of steps",
        "time",
        "commit",
        "machine",
        "command",
    ]
    rows = []
    for record in group.records:
        start = record.starts[-1]
        values = [record.metrics.get(name) for name in report.names]
        shown = ["-" if v is None else f"{tables.factor_of(name) * v:.6g}" for name, v in zip(report.names, values)]
        commit = (start.get("commit") or "none")[:10] + (" and changes" if start.get("uncommitted") else "")
        row = [tables.Cell(record.folder.name, link=record.folder), tables.Cell(str(record.seed), sort=record.seed)]
        row += [tables.Cell(text, sort=value) for text, value in zip(shown, values)]
        row += [tables.Cell(str(record.result[key]), sort=record.result[key]) for key in ("best_step", "step")]
        row.append(tables.Cell(tables.clock(record.result["seconds"]), sort=record.result["seconds"]))
        row += [
            tables.Cell(text)
            for text in (commit, gather.hardware(start), _command(start.get("command") or ["unknown"]))
        ]
        rows.append(row)
    return tables.Table(head, rows, [], 1)


def _command(arguments):
    """A script's arguments, its own name first, as they are typed."""
    script, *flags = arguments
    stem = script.removesuffix(".py")
    return shlex.join([*(("python", "-m", f"experiments.{stem}") if stem != script else (script,)), *flags])


def _link(folder, output):
    return urllib.parse.quote(os.path.relpath(folder, output))


def _data(path):
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
