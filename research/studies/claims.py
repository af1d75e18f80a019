"""Claims: what is published of an experiment, and when our runs are said to reach it.

claims() of a config file gives a list of them as plain data, each a dict of the fields of Claim from `size` on:

    def claims():
        return [{"size": "cpu", "metric": "accuracy", "published": 0.9917, "met": "at_least", "seeds": 3,
                 "paper": "Flax, examples/mnist", "row": "10 epochs"}]

Its runs differ in their seed alone, 0 to seeds - 1. What they reached is kept in results/<claim>.json, from which the
tables in README and in the configs' headers are made.
"""

import pathlib
import re
import typing
from typing import Any, NamedTuple

from research import config as configs
from research import runs
from research.errors import UserError, nearest, pick, users_code
from research.studies import gather, schedule, statistics, tables
from research.studies.statistics import CONFIDENCE
from research.studies.sweep import axis, trials_of

MET = {"at_least": "at least", "at_most": "at most", "within": "within"}
FORMAT = 1
FOLDER = "results"
CODE = ("research/", "configs/", "experiments/")
NOTE = f"{tables.SPREADS['t']}; p: one-sided t test over seeds, met below 0.05; minutes: of all seeds together."


class Claim(NamedTuple):
    """A figure that some runs of a config shall reach."""

    file: str  # configs/<name>.py
    config: Any  # complete, its overrides in it
    size: str
    metric: str  # as accuracy
    split: str = "test"
    variant: str = ""  # tells it from the other claims of the file and size
    overrides: dict = {}  # {dotted path: value}, which make the variant
    also: tuple = ()  # further metrics that tables show beside it
    paper: str = ""  # who published it, and where
    table: str = ""
    row: str = ""
    published: float | None = None  # in the metric's own unit: a rate in [0, 1]; None where nothing is
    spread: tuple | None = None  # (standard deviation, seeds) of what is published
    met: str = "at_least"  # or at_most or within
    margin: float = 0.0  # of within
    seeds: int = 3
    gpu: bool = False  # whether it wants one
    needs: str = ""  # what must be there first, in words
    why: str = ""  # why it is not met

    @property
    def name(self):
        return pathlib.Path(self.file).stem + (f"+{self.variant}" if self.variant else "")

    @property
    def metrics(self):
        """Names as test/accuracy, the claimed one first."""
        return [f"{self.split}/{name}" for name in (self.metric, *self.also)]

    @property
    def stem(self):
        """Of its file in results/, and of its folder of runs."""
        return re.sub(r"\W", "_", f"{self.name}_{self.size}")

    @property
    def source(self):
        return ", ".join(word for word in (self.paper, self.table, self.row) if word)


class Judged(NamedTuple):
    """A claim beside its runs."""

    claim: Claim
    runs: list[dict]  # as results/<claim>.json has them, by seed; [] where there are none of its config
    p: float | None  # of the one-sided test; None where there is none
    verdict: str  # met, not met, not run, too few seeds, nothing published
    stale: str  # why runs that are kept are none of this claim; ""

    @property
    def seconds(self):
        """Of a run, at the mean; None where there is none."""
        return sum(run["seconds"] for run in self.runs) / len(self.runs) if self.runs else None


def read(folder="configs"):
    """The claims of all config files in a folder, by file.

    Raises:
        UserError: 2, for a claim that is none, or two of one name and size.
    """
    found = {}
    for file in sorted(pathlib.Path(folder).glob("*.py")):
        for claim in _of_file(str(file)):
            if claim.stem in found:
                raise UserError(2, f"{file}: a second claim {claim.name} of size {claim.size}; give it a variant")
            found[claim.stem] = claim
    if not found:
        raise UserError(2, f"{folder}: no config file in it has claims()")
    return list(found.values())


def _of_file(file):
    function = configs.load_names(file).get("claims", list)
    with users_code(f"{file}, claims()", __file__):
        entries = function()
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(2, f"{file}, claims(): gives no list of dicts")
        return [_claim(file, f"{file}, claim {number}", entry) for number, entry in enumerate(entries, start=1)]


def _claim(file, place, entry):
    types = typing.get_type_hints(Claim)
    del types["file"], types["config"]
    for key, value in entry.items():
        if key not in types:
            raise UserError(2, f"{place}: no field {key!r}{nearest(key, types)}; fields are {', '.join(types)}")
        number = isinstance(value, int) and not isinstance(value, bool) and types[key] in (float, float | None)
        if not (isinstance(value, types[key]) or number) or (types[key] is int and isinstance(value, bool)):
            wanted = getattr(types[key], "__name__", types[key])
            raise UserError(2, f"{place}: {key}: {value!r} is not {wanted}")
    for key in ("size", "metric"):
        if not entry.get(key):
            raise UserError(2, f"{place}: {key}: needed")
    try:
        config = configs.load_file(f"{file}:{entry['size']}")[0]
        claim = Claim(file, configs.override(config, entry.get("overrides", {})), **entry)
    except UserError as error:
        raise UserError(2, f"{place}: {error}") from error
    pick(MET, claim.met, f"{place}: met")
    spread = claim.spread
    if spread is not None and not (len(spread) == 2 and spread[0] >= 0 and spread[1] >= 2):
        raise UserError(2, f"{place}: spread: {spread!r} is not (standard deviation, seeds), of 2 or more")
    if (claim.met == "within") != (claim.margin > 0):
        raise UserError(2, f"{place}: margin: {claim.margin:g}; met=within has one above 0, and no other has")
    if claim.seeds < (least := 1 if claim.published is None else 2):
        raise UserError(2, f"{place}: seeds: {claim.seeds}; at least {least}, or there is nothing to test")
    return claim


def named(claims, name, size):
    """The claim of some that a command line asks for; the size may be None where it has one alone.

    Raises:
        UserError: 2, that lists what there is.
    """
    sizes = {}
    for claim in claims:
        sizes.setdefault(claim.name, {})[claim.size] = claim
    if name not in sizes:
        raise UserError(2, f"{name}: no claim of that name{nearest(name, sizes)}; there are {', '.join(sizes)}")
    own = sizes[name]
    if size is None and len(own) > 1:
        raise UserError(2, f"--size: needed; {name} has claims of {', '.join(own)}")
    size = next(iter(own)) if size is None else size
    if size not in own:
        raise UserError(2, f"--size: {name} has no claim of size {size}; it has of {', '.join(own)}")
    return own[size]


def plan(claim, folder):
    """The sweep of a claim's runs."""
    trials, _ = trials_of(claim.config, axis("seed", range(claim.seeds)))
    return schedule.Plan(folder, claim.file, claim.size, claim.config, trials, {"claim": claim.name})


def keep(claim, records, folder=FOLDER):
    """Writes results/<claim>.json: what all runs of a claim have reached.

    Args:
        records: gather.Record of each seed, all finished.

    Raises:
        UserError: 5 for a file that cannot be written.
    """
    kept = [
        {
            "seed": record.seed,
            "metrics": record.metrics,
            "seconds": record.result["seconds"],
            "parameters": record.result["parameters"],
            "commit": _commit(start := record.starts[-1]),
            "versions": start["versions"],
            "hardware": gather.hardware(start),
            "gflops": start.get("gflops"),
        }
        for record in sorted(records, key=lambda record: record.seed)
    ]
    path = pathlib.Path(folder) / f"{claim.stem}.json"
    path.parent.mkdir(exist_ok=True)
    runs.write_json(path, {"format": FORMAT, "config": configs.to_json(claim.config), "runs": kept})


def _commit(start):
    """The commit that a run was made by; None where code was changed beside it."""
    code = [line for line in start["uncommitted"] if line[3:].startswith(CODE)]
    return None if code else start["commit"]


def judge(claim, folder=FOLDER):
    """A claim beside the runs that are kept of it.

    Raises:
        UserError: 2, for a file that is none of ours.
    """
    path = pathlib.Path(folder) / f"{claim.stem}.json"
    saved, stale, kept = runs.read_json(path), "", []
    if saved is not None:
        try:
            if saved["format"] != FORMAT:
                raise ValueError(f"format {saved['format']}")
            stale = _differing(claim, saved["config"])
            kept = [] if stale else [run for run in saved["runs"] if run["seed"] < claim.seeds]
            values = [run["metrics"][claim.metrics[0]] for run in kept]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(2, f"{path}: no results of a claim of ours: {error!r}") from error
    if not kept:
        return Judged(claim, [], None, "not run", stale and f"{path}: its runs are of another config: {stale}")
    if claim.published is None:
        return Judged(claim, kept, None, "nothing published", "")
    if len(kept) < claim.seeds:
        return Judged(claim, kept, None, "too few seeds", "")
    p = statistics.one_sided(values, claim.published, claim.met, claim.margin, claim.spread)
    return Judged(claim, kept, p, "met" if p < 1 - CONFIDENCE else "not met", "")


def _differing(claim, saved):
    """Where the config of kept runs is another than the claim's is now; "" where it is the same."""
    try:
        found = configs.differences(configs.from_json(saved), claim.config)
    except UserError as error:
        return str(error)
    return "; ".join(f"config.{path} {there!r} there, {here!r} here" for path, there, here in found)


def published(claim):
    """What counts as met, in the unit that tables have: "at least 99.17"."""
    if claim.published is None:
        return "-"
    number = lambda value: f"{tables.factor_of(claim.metrics[0]) * value:.6g}"
    spread = f" ± {number(claim.spread[0])} ({claim.spread[1]})" if claim.spread else ""
    margin = f" {number(claim.margin)} of" if claim.met == "within" else ""
    return f"{MET[claim.met]}{margin} {number(claim.published)}{spread}"


def ours(judged, spread):
    """What the runs reached, the claimed metric first: "98.9 ± 0.5"; "-" of none."""
    if not judged.runs:
        return "-"
    values = lambda name: [run["metrics"][name] for run in judged.runs]
    figure = lambda name: tables.figure(statistics.summary(values(name)), spread, tables.factor_of(name))
    return " / ".join(figure(name) for name in judged.claim.metrics)


def titles(claim):
    return " / ".join(map(tables.title, claim.metrics))


def said(judged):
    """The verdict in words: "not met, p = 0.120"."""
    if judged.p is None:
        return judged.verdict
    return f"{judged.verdict}, p {'' if judged.p < 0.001 else '= '}{tables.probability(judged.p)}"


def words(judged):
    """A claim and its verdict in a sentence."""
    claim = judged.claim
    where = f" ({claim.source})" if claim.source else ""
    reached = f"{titles(claim)}: {ours(judged, 't')}, {tables.seeds(len(judged.runs))} seeds"
    if claim.published is None:
        return f"{reached}; nothing is published{where}"
    why = f": {claim.why}" if judged.verdict == "not met" and claim.why else ""
    return f"{reached}; published{where}: {published(claim)}: {said(judged)}{why}"


def table(found):
    """Claims beside their runs, of Judged ones, for a terminal and a page."""
    head = ["claim", "size", "metric", "published", "ours", "n", "p", "verdict", "minutes", "source"]
    rows, notes = [], []
    for judged in found:
        claim, seconds = judged.claim, judged.seconds
        n = f"{len(judged.runs)} of {claim.seeds}" if 0 < len(judged.runs) < claim.seeds else str(len(judged.runs))
        minutes = "-" if seconds is None else f"{seconds * claim.seeds / 60:.1f}"
        p = "-" if judged.p is None else tables.probability(judged.p)
        verdict = judged.verdict + (", wants a GPU" if claim.gpu and judged.verdict == "not run" else "")
        words = [claim.name, claim.size, titles(claim), published(claim), ours(judged, "t"), n, p, verdict, minutes]
        rows.append([tables.Cell(word) for word in (*words, claim.source or "-")])
        notes += [f"{claim.name}, {claim.size}: {note}" for note in _remarks(judged)]
    return tables.Table(head, rows, [NOTE, *notes], 4)


def _remarks(judged):
    claim = judged.claim
    if judged.stale:
        yield judged.stale
    if claim.needs:
        yield f"needs {claim.needs}"
    if judged.verdict == "not met":
        yield f"not met: {claim.why or 'the config does not say why'}"
