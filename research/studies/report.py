"""The report of some runs: tables, figures, a page and unrounded numbers, all read from their folders."""

import math
import os
import pathlib
import tempfile
from typing import NamedTuple

from research import runs
from research.errors import UserError
from research.fields import brief, text_of
from research.studies import figures, gather, illustrate, page, pareto, statistics, tables
from research.studies.statistics import CONFIDENCE, FEW

TESTS = {  # by name, and whether paired
    ("t", False): "Welch's t test",
    ("t", True): "a t test of pairs by seed",
    ("permutation", False): "a permutation test",
    ("permutation", True): "a permutation test of pairs by seed",
    ("rank", False): "Wilcoxon's rank-sum test",
    ("rank", True): "Wilcoxon's signed-rank test of pairs by seed",
}


class Report(NamedTuple):
    """What is known of some runs."""

    groups: list[gather.Group]
    names: list[str]  # of the metrics that the tables show, as test/accuracy; figures show the first
    summaries: list[dict[str, statistics.Summary]]  # of each group, of all metrics
    best: dict[str, int]  # of each metric of known direction, the number of the group with the best mean
    against: dict[str, dict[int, tuple[statistics.Comparison, float]]]  # of each: the others' difference, Holm's p
    failed: list[gather.Record]  # runs that are in no number
    spread: str  # one of tables.SPREADS
    notes: list[str]
    front: pareto.Front | None = None  # of a search for several objectives

    def is_bold(self, name, number):
        """Whether a group is the best of several by a metric, or does not differ from it by its test."""
        found = self.against[name].get(number)
        best = number == self.best.get(name) and len(self.groups) > 1
        return best or (found is not None and found[1] >= 1 - CONFIDENCE)


def make(folders, metrics=(), spread="t", test="t", paired=False):
    """Reads the runs in some folders and compares their groups.

    Args:
        metrics: the names that the tables show; those of the test, if none are given, or of the validation.
        spread: how the uncertainty is shown, one of tables.SPREADS.
        test, paired: as statistics.compare has them.

    Raises:
        UserError: 2, for a folder without runs, no finished run, or a metric that no run reports.
    """
    found, left = gather.groups(gather.read(folders))
    failed = [*left, *(record for group in found for record in group.failed)]
    if not any(group.records for group in found):
        raise UserError(
            2, f"no finished run in {', '.join(map(str, folders))}: {len(failed)} are not; nothing to report"
        )
    names = gather.pick_metrics(found, metrics)
    values = [{name: group.values(name) for name in gather.metric_names(found)} for group in found]
    summaries = [
        {name: statistics.summary(list(own.values())) for name, own in of_group.items() if own} for of_group in values
    ]
    best, against = _judged(found, names, values, summaries, test, paired)
    compared = sum(map(len, against.values()))
    notes = [f"{tables.SPREADS[spread]}; in brackets the seeds, {tables.MARK} fewer than {FEW}."]
    if len(found) > 1:
        words = (
            f" and those that do not differ from it at 5 % ({TESTS[test, paired]}, Holm over {compared} comparisons)"
        )
        notes.append(f"Bold: the best mean{words if compared else ''}.")
        notes += _too_few(found, test, paired, compared)
        notes += _chosen(found, summaries)
    several = pareto.of(folders, found)
    if several:
        words = "; ".join(found[i].name for i in several.best)
        notes.append(f"Pareto front of {', '.join(several.labels)}: {words}.")
    return Report(found, names, summaries, best, against, failed, spread, notes + _mixed(found), several)


def _judged(found, names, values, summaries, test, paired):
    """The best group by each metric, and how the others differ from it."""
    best, against = {}, {name: {} for name in names}
    for name in names:
        means = {i: own[name].mean for i, own in enumerate(summaries) if name in own}
        direction = gather.direction_in(found, name)
        if direction is None:
            continue
        best[name] = gather.best_first(means, direction)[0]
        first = values[best[name]][name]
        for i in means:
            own = values[i][name]
            seeds = sorted(first.keys() & own.keys())
            a, b = ([side[seed] for seed in seeds] if paired else list(side.values()) for side in (own, first))
            if i != best[name] and min(len(a), len(b)) > 1:
                against[name][i] = statistics.compare(a, b, test, paired)
    places = [(name, i) for name, others in against.items() for i in others]
    for (name, i), p in zip(places, statistics.holm([against[name][i].p for name, i in places])):
        against[name][i] = (against[name][i], p)
    return best, against


def _too_few(found, test, paired, compared):
    """A note, where so few seeds can show no difference by this test, however large it is."""
    n = max(len(group.records) for group in found)
    least = 2 / (2**n if paired else math.comb(2 * n, n))  # the p of the most extreme order of two groups of n
    if test == "t" or compared * least <= 1 - CONFIDENCE:
        return []
    return [f"With {n} seeds and {compared} comparisons this test finds no difference at 5 %, however large it is."]


def _chosen(found, summaries):
    """Which group is the best on validation, by which it may be chosen: the test is for reporting."""
    if len({gather.judged_by(group) for group in found}) > 1:
        return []
    metric, direction = gather.judged_by(found[0])
    means = {i: own[metric].mean for i, own in enumerate(summaries) if metric in own}
    return [f"Best on {tables.title(metric)}: {found[gather.best_first(means, direction)[0]].name}."]


def _mixed(found):
    """Notes on groups whose runs differ in more than their seed: in data, code, versions or machine."""
    notes = []
    for group in found:
        for key in ("data", "commit", "versions", "machine", "devices"):
            if len({str(record.starts[-1].get(key)) for record in group.records}) > 1:
                notes.append(f"{group.name}: its runs are of different {'code' if key == 'commit' else key}.")
    return notes


def results_table(report):
    """A row for each group: what tells it from the others, what is left out, its metrics and the time of a run."""
    paths = list(report.groups[0].differs)
    left = any(group.failed for group in report.groups)
    head = [*(paths or ["config"]), *(["left out"] if left else []), *map(tables.title, report.names), "time a run"]
    rows = []
    for number, group in enumerate(report.groups):
        cells = [tables.Cell(brief(group.differs[path]), sort=group.differs[path]) for path in paths]
        cells = cells or [tables.Cell(group.name)]
        if left:
            statuses = [record.status for record in group.failed]
            counts = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)]
            cells.append(tables.Cell(", ".join(counts)))
        for name in report.names:
            found = report.summaries[number].get(name)
            if found is None:
                cells.append(tables.Cell("- (0)"))
                continue
            text = f"{tables.figure(found, report.spread, tables.factor_of(name))} ({tables.seeds(found.n)})"
            cells.append(tables.Cell(text, report.is_bold(name, number), found.mean, number))
        seconds = [record.result["seconds"] for record in group.records]
        mean = sum(seconds) / len(seconds) if seconds else None
        rows.append([*cells, tables.Cell("-" if mean is None else tables.clock(mean), sort=mean)])
    failed = [f"Left out: {record.folder}: {record.status}: {record.reason}" for record in report.failed]
    return tables.Table(head, rows, [*report.notes, *failed], len(head) - len(report.names) - 1)


def comparison_table(report):
    """How each group differs from the best one; None where nothing could be compared."""
    rows = []
    for name in report.names:
        for number, (found, p) in report.against[name].items():
            factor = tables.factor_of(name)
            half = factor * (found.interval[1] - found.difference)
            words = [
                tables.title(name),
                report.groups[number].name,
                report.groups[report.best[name]].name,
                " ± ".join(tables.rounded(factor * found.difference, half)),
            ]
            numbers = [found.p, p, found.effect]
            texts = [*map(tables.probability, numbers[:2]), "-" if found.effect is None else f"{found.effect:.2f}"]
            counts = [tables.seeds(report.summaries[i][name].n) for i in (number, report.best[name])]
            cells = [tables.Cell(word) for word in words[:3]]
            cells.append(tables.Cell(words[3], sort=found.difference, group=number))
            cells += [tables.Cell(text, sort=value, group=number) for text, value in zip(texts, numbers)]
            rows.append([*cells, tables.Cell(" and ".join(counts))])
    head = ["metric", "of", "less that of the best", "difference", "p", "p by Holm", "Hedges' g", "seeds"]
    notes = ["± is the 95 % interval of the difference by Student's t."]
    return tables.Table(head, rows, notes, 3) if rows else None


def as_json(report):
    """report.json: all numbers with all their digits."""
    groups = []
    for number, group in enumerate(report.groups):
        found = {}
        for name, summary in report.summaries[number].items():
            own = group.values(name)
            found[name] = {**summary._asdict(), "values": list(own.values()), "seeds": list(own)}
            found[name]["few_seeds"] = summary.n < FEW
            if number in report.against.get(name, {}):
                difference, p = report.against[name][number]
                found[name]["from_best"] = {**difference._asdict(), "p_holm": p}
            if name in report.best:
                found[name]["bold"] = report.is_bold(name, number)
        folders = [str(record.folder) for record in group.records]
        groups.append({"name": group.name, "config": group.differs, "runs": folders, "metrics": found})
    failed = [{"folder": str(r.folder), "status": r.status, "reason": r.reason} for r in report.failed]
    return {"groups": groups, "failed": failed, "notes": report.notes}


def as_csv(report):
    """One line for each group and metric, all digits."""
    paths = list(report.groups[0].differs)
    fields = ("n", "mean", "std", "standard_error", "interval", "bootstrap", "median", "interquartile_mean")
    pairs = ("interval", "bootstrap")
    columns = [f"{name}_{end}" for name in pairs for end in ("low", "high")]
    head = [*paths, "metric", *(name for name in fields if name not in pairs), *columns, "few_seeds"]
    lines = []
    for group, own in zip(report.groups, report.summaries):
        for name, found in own.items():
            plain = [getattr(found, field) for field in fields if field not in pairs]
            bounds = [bound for pair in pairs for bound in (getattr(found, pair) or (None, None))]
            differs = [text_of(group.differs[path]) for path in paths]
            lines.append([*differs, name, *plain, *bounds, found.n < FEW])
    return tables.as_csv(head, lines)


def details_table(report):
    """Every number of every group, to five digits."""
    head = ["metric", "of", "n", "mean", "std", "standard error", "95 % by t", "95 % by bootstrap", "median",
            "interquartile mean", "seeds for half the interval"]  # fmt: skip
    rows = []
    for name in report.names:
        factor = tables.factor_of(name)
        text = lambda value: "-" if value is None else f"{factor * value:.5g}"
        pair = lambda bounds: "-" if bounds is None else f"{text(bounds[0])} to {text(bounds[1])}"
        for number, (group, own) in enumerate(zip(report.groups, report.summaries)):
            if name not in own:
                continue
            s = own[name]
            half = (s.interval[1] - s.mean) / 2 if s.std else None
            wanted = statistics.seeds_for(s.std, half) if half else None
            cells = [tables.Cell(tables.title(name)), tables.Cell(group.name), tables.Cell(tables.seeds(s.n), sort=s.n)]
            for value in (s.mean, s.std, s.standard_error, s.interval, s.bootstrap, s.median, s.interquartile_mean):
                pairs = isinstance(value, tuple)
                shown, sort = (pair(value), value[0]) if pairs else (text(value), value)
                cells.append(tables.Cell(shown, sort=sort, group=number))
            rows.append([*cells, tables.Cell(str(wanted or "-"), sort=wanted)])
    return tables.Table(head, rows, [], 2)


def write(report, output):
    """Writes tables, figures, report.json and report.html into a folder: an empty one, or that of an earlier report,
    whose files go. All is made beside it first: what goes wrong costs the earlier one nothing.

    Raises:
        UserError: 2 for a folder that holds something else, 5 for one that cannot be written.
    """
    output = pathlib.Path(output)
    before = check_output(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}", dir=output.parent) as beside:
            files = _write(report, output, pathlib.Path(beside))
            for name in [*files, "report.json"]:  # last: it names the others
                os.replace(f"{beside}/{name}", output / name)
        for name in set(before) - {*files, "report.json"}:
            (output / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(5, f"{output}: cannot be written: {error.strerror}") from error


def _write(report, output, beside):
    """Writes all files beside the folder in which they will stand; their names, but for report.json."""
    shown = {"results": results_table(report), "comparisons": comparison_table(report)}
    shown = {name: table for name, table in shown.items() if table}
    texts = {"results.csv": as_csv(report)}
    for name, table in shown.items():
        texts |= {f"{name}.md": tables.markdown(table), f"{name}.tex": tables.latex(table)}
    if "comparisons" in shown:
        plain = [[cell.text if cell.sort is None else cell.sort for cell in row] for row in shown["comparisons"].rows]
        texts["comparisons.csv"] = tables.as_csv(shown["comparisons"].head, plain)
    for name, lines in texts.items():
        runs.write_text(beside / name, "".join(f"{line}\n" for line in lines))
    drawn = illustrate.draw(report, beside)
    files = [*texts, *(f"{stem}.{kind}" for stem in drawn for kind in figures.FORMATS), "report.html"]
    text = page.make(report, shown | {"details": details_table(report)}, drawn, beside, output)
    runs.write_text(beside / "report.html", text)
    runs.write_json(beside / "report.json", as_json(report) | {"files": [*files, "report.json"]})
    return files


def check_output(output):
    """The files of the report that a folder holds.

    Raises:
        UserError: 2 where it holds something else, 5 where it cannot be written.
    """
    runs.check_writable(output)
    if not output.is_dir():
        return []
    before = runs.read_json(output / "report.json")
    files = before.get("files") if isinstance(before, dict) else None
    plain = isinstance(files, list) and all(isinstance(name, str) and name == pathlib.Path(name).name for name in files)
    if any(output.iterdir()) and not plain:
        raise UserError(2, f"--output: {output}: not empty, and holds no report; choose another folder")
    return files or []
