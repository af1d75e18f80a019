"""What is seen of a sweep: its trials as their folders tell, live while they run and as a table in the end."""

import math
import sys
import time
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from research import metrics, runs
from research.fields import brief
from research.studies.sweep import aligned

ROWS = 20  # of a live table
QUIET = 30.0  # seconds after which a plain line says how far it is


class Seen(NamedTuple):
    """A trial, as its folder tells."""

    status: str  # waiting, begun, or as result.json has it
    share: float  # of its steps that are done
    validation: float | None  # the metric by which it is judged, at its best step so far
    result: dict  # result.json; {} where there is none


def look(trial, folder):
    """Reads a trial's folder."""
    result = runs.read_result(folder)
    status = result.get("status", "begun" if runs.is_begun(folder) else "waiting")
    metric, direction = trial.config.eval.metric, trial.config.eval.direction
    if status == "finished":
        return Seen(status, 1.0, result["metrics"]["validation"].get(metric), result)
    rows = runs.read_rows(folder)
    values = [row[metric] for row in rows if row["split"] == "validation" and metric in row]
    best = (max if direction == "max" else min)(values, default=None)
    over = status in ("diverged", "pruned")
    return Seen(status, 1.0 if over else max((row["step"] for row in rows), default=0) / trial.steps, best, result)


def best_of(plan, seen):
    """The finished trial that is best on validation, of those that are judged as the first trial is; None before."""
    first, best = _judged(plan), None
    for trial in plan.trials:
        found, judged = seen[trial.name], trial.config.eval
        if found.status == "finished" and (judged.metric, judged.direction) == (first.metric, first.direction):
            value = None if best is None else seen[best.name].validation
            if metrics.is_better(found.validation, value, first.direction):
                best = trial
    return best


def _judged(plan):
    """How the trials are judged, the first one where they differ."""
    return (plan.trials[0] if plan.trials else plan).config.eval


def results(plan):
    """The table of a sweep in lines: each trial with its status, its validation and test metrics; and the best one of
    those that are judged as the first is."""
    seen = {trial.name: look(trial, plan.folder / trial.name) for trial in plan.trials}
    paths = list(dict.fromkeys(path for trial in plan.trials for path in trial.overrides))
    tests = list(dict.fromkeys(name for s in seen.values() for name in s.result.get("metrics", {}).get("test", {})))
    metric = _judged(plan).metric
    rows = [("trial", *paths, "status", "best step", f"validation {metric}", *(f"test {name}" for name in tests))]
    for number, trial in enumerate(plan.trials, start=1):
        found = seen[trial.name]
        own = found.result.get("metrics", {}).get("test", {})
        values = [brief(trial.overrides[path]) if path in trial.overrides else "" for path in paths]
        step = str(found.result.get("best_step", ""))
        numbers = [found.validation, *(own.get(name) for name in tests)]
        rows.append((str(number), *values, found.status, step, *map(_number, numbers)))
    best = best_of(plan, seen)
    if best is None:
        return aligned(rows)
    judged = f"validation {metric} {_number(seen[best.name].validation)}"
    return [*aligned(rows), f"best {judged}: trial {plan.trials.index(best) + 1}, {plan.folder / best.name}"]


def _number(value):
    return "" if value is None else f"{value:.4f}"


class View:
    """Shows a sweep on stderr while it runs: a live table on a terminal, elsewhere a line for each trial that ends."""

    def __init__(self, plan, stream=None, total=None):
        """total: how many trials there will be, where the plan gets them one by one."""
        self.plan, self.stream, self.total = plan, stream or sys.stderr, total
        self.seen = {trial.name: look(trial, plan.folder / trial.name) for trial in plan.trials}
        self.running, self.began, self.said, self.next_look = set(), time.monotonic(), time.monotonic(), 0.0
        self.before = sum(found.share for found in self.seen.values())
        terminal = self.stream.isatty()
        self.live = Live(console=Console(file=self.stream), auto_refresh=False, transient=True) if terminal else None

    def __enter__(self):
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error):
        if self.live:
            self.live.stop()

    def show(self, running):
        """Looks at the trials that run, and at those that no longer do."""
        before, self.running, began = self.running, set(running), time.monotonic()
        if before != self.running or began > self.next_look:
            for trial in self.plan.trials:
                if trial.name in before | self.running or trial.name not in self.seen:
                    self.seen[trial.name] = look(trial, self.plan.folder / trial.name)
            # Long logs take long to read: a twentieth of the time at most.
            self.next_look = time.monotonic() + 20 * (time.monotonic() - began)
        ended = [trial for trial in self.plan.trials if trial.name in before - self.running]
        for left, trial in zip(range(len(ended) - 1, -1, -1), ended):
            if not self.live or self.seen[trial.name].status != "finished":
                self._say(f"{trial.name}: {self._words(trial)}", self._over() - left)
        if self.live:
            self.live.update(self._table(), refresh=True)
        elif running and time.monotonic() - self.said > QUIET:
            self._say(", ".join(f"{name} {self.seen[name].share:.0%}" for name in running[:4]), self._over())

    def _say(self, text, over):
        self.said = time.monotonic()
        line = f"{over}/{self._count()}  {text}  {self._summary()}"
        if self.live:
            self.live.console.print(line, highlight=False)
        else:
            print(line, file=self.stream, flush=True)

    def _count(self):
        return max(self.total or 0, len(self.plan.trials))

    def _over(self):
        return sum(found.status not in ("waiting", "begun", "stopped") for found in self.seen.values())

    def _words(self, trial):
        found = self.seen[trial.name]
        if found.status != "finished":
            return f"{found.status}: {found.result.get('reason', 'gone; it will be tried again')}"
        return f"validation {trial.config.eval.metric} {found.validation:.4f}"

    def _summary(self):
        words, best = [], best_of(self.plan, self.seen)
        if best:
            words.append(f"best {self.seen[best.name].validation:.4f}: {best.name}")
        left = self.seconds_left()
        if left is not None:
            words.append(f"{left // 3600}:{left % 3600 // 60:02d}:{left % 60:02d} left")
        return "  ".join(words)

    def seconds_left(self):
        """An estimate from the share of all steps that was done since; None before the first trial has ended."""
        done = sum(found.share for found in self.seen.values())
        if done - self.before < 1e-9 or not any(found.status == "finished" for found in self.seen.values()):
            return None
        left = (time.monotonic() - self.began) / (done - self.before) * (self._count() - done)
        return math.ceil(left)

    def _table(self):
        """The trials that run, then those that ended last, as many as fit."""
        table = Table(box=box.SIMPLE, title=f"{self._over()} of {self._count()} trials", caption=self._summary())
        for name in ("trial", "status", "steps", f"validation {_judged(self.plan).metric}"):
            table.add_column(name)
        order = sorted(self.plan.trials, key=lambda trial: trial.name not in self.running)
        shown = [trial for trial in order if self.seen[trial.name].status != "waiting"][:ROWS]
        for trial in shown:
            found = self.seen[trial.name]
            status = "running" if trial.name in self.running else found.status
            table.add_row(trial.name, status, f"{found.share:.0%}", _number(found.validation))
        if self._count() > len(shown):
            table.add_row(f"{self._count() - len(shown)} more", "", "", "")
        return table
