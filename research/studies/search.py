"""Search: Optuna says which point is tried next, and which trial is not worth going on with.

Trials are known to all processes and machines by Optuna's storage, their runs by the folders that their points name.
"""

import contextlib
import hashlib
import json
import math
import pathlib
import re
import sys
import time
import warnings
from typing import Any, NamedTuple

import optuna
import sqlalchemy
from optuna.trial import TrialState

from research import config as configs
from research import runs
from research.errors import UserError, pick
from research.fields import brief
from research.manifest import hidden
from research.studies import population, schedule
from research.studies.space import PRUNERS, distribution, grid
from research.studies.sweep import trials_of

JOURNAL = "journal.log"  # Optuna's storage in the search's folder, where no other is given
BEAT, GRACE = 30, 120  # seconds between signs of life, and without one before a trial is another machine's to take up
AGAIN = "again"  # user attribute of a trial that takes up another one's point: its number


class Search:
    """What `schedule.run` asks for trials, and tells what became of them."""

    def __init__(self, plan, asked, *, count=None, at_once=1, storage=None):
        """Args:
            plan: of no trials yet; those that are asked for are added.
            count: points to try, over all processes and machines; all of a grid, else 20, if not given.
            at_once: how many are asked for at a time, to be trained together where they can be.
            storage: URL of a storage that several machines share; a file in the folder, if not given.

        Raises:
            UserError: 2, for a storage that is not reached.
        """
        self.plan, self.asked, self.at_once, self.storage = plan, asked, at_once, storage
        self.space = {path: distribution(path, entry) for path, entry in asked.space.items()}
        size = math.prod(map(len, grid(asked.space).values())) if asked.sampler == "grid" else math.inf
        self.count = min(count or (20 if size == math.inf else size), size)
        text = json.dumps([plan.file, plan.size, configs.to_json(plan.config), asked.as_json()], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        self.name = f"{pathlib.Path(plan.file).stem}_{plan.size}_{asked.sampler}_{digest}"
        self.running = {}  # name of a trial's folder: Optuna's Trial
        self.kept = open_storage(plan.folder, storage) if storage else None
        self.study = self._open() if storage else None
        self.next_beat = 0.0

    def _open(self):
        directions = [f"{objective.direction}imize" for objective in self.asked.objectives]
        with _asking(self.storage):
            return optuna.create_study(
                study_name=self.name,
                storage=self.kept,
                sampler=_Sampler(self.asked, self.plan.config.seed),
                pruner=PRUNERS[self.asked.pruner]() if self.asked.pruner else optuna.pruners.NopPruner(),
                directions=directions,
                load_if_exists=True,
            )

    def begin(self):
        """Takes up what is there; without a storage of several machines, the folder's lock is held."""
        with _asking(self.storage):
            if self.study is None:
                self.kept = open_storage(self.plan.folder, None)
                self.study = self._open()
                for trial in self.study.get_trials(states=(TrialState.RUNNING,)):  # of a driver that is gone
                    self._leave(trial.number)
            for trial in self.study.get_trials(deepcopy=False):
                with contextlib.suppress(UserError):
                    point = self._point(trial.params)
                    if set(trial.params) == set(self.space) and runs.is_begun(self.plan.folder / point.name):
                        self._known(point)

    def more(self):
        """Jobs to do next; [] where there is none left."""
        found = []
        with _asking(self.storage):
            optuna.storages.fail_stale_trials(self.study)
            while len(found) < self.at_once and self._left():
                asked = self.study.ask(self.space)
                try:
                    point = self._point(asked.params)
                except UserError as error:
                    print(f"trial {asked.number}: {error}", file=sys.stderr, flush=True)
                    self.study.tell(asked, state=TrialState.FAIL)
                    continue
                if self._same(asked, point):
                    continue
                self._known(point)
                self.running[point.name] = asked
                self._beat(asked)
                result = runs.read_result(self.plan.folder / point.name)
                if result.get("status") in schedule.OVER:  # before a driver that is gone could tell
                    self._tell(point.name, result)
                else:  # what an earlier try left is no result of this one
                    (self.plan.folder / point.name / "result.json").unlink(missing_ok=True)
                    found.append(point)
        return [schedule.Job(trials) for trials in population.grouped(found, self.at_once)] if found else []

    def _left(self):
        """How many points may be asked for: those that others left, and what is missing to the count."""
        known = self.study.get_trials(deepcopy=False)
        waiting = sum(trial.state == TrialState.WAITING for trial in known)
        return waiting + max(0, self.count - sum(AGAIN not in trial.user_attrs for trial in known))

    def _same(self, asked, point):
        """Whether another trial has this point: what it reached is told again, and nothing is trained twice."""
        if point.name in self.running:
            self.study.tell(asked, state=TrialState.FAIL)
            return True
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if trial.params == asked.params:
                self.study.tell(asked, list(trial.values))
                return True
        return False

    def _point(self, params):
        (point,), _ = trials_of(self.plan.config, [params])
        return point

    def _known(self, point):
        if point.name not in [trial.name for trial in self.plan.trials]:
            steps = configs.durations(point.config, self.plan.examples)["train"]
            self.plan.trials.append(point._replace(steps=steps))

    def through(self, trial):
        """How a trial's run is watched in the process that trains it; None where nothing ends it early."""
        if self.asked.pruner is None:
            return None
        own = (self.plan.folder, self.storage, self.name, self.running[trial.name]._trial_id)
        return Pruning(*own, self.asked.objectives[0].metric, self.asked.pruner)

    def look(self):
        """Tells what became of trials that are over, as their folders have it, and that the others still run."""
        for name in list(self.running):
            result = runs.read_result(self.plan.folder / name)
            if result.get("status") not in (None, "stopped"):
                self._tell(name, result)
        if time.monotonic() > self.next_beat:
            self.next_beat = time.monotonic() + BEAT
            with _asking(self.storage):
                for asked in self.running.values():
                    self._beat(asked)

    def _beat(self, asked):
        if self.storage:  # the journal of one driver needs none
            self.kept.record_heartbeat(asked._trial_id)

    def _tell(self, name, result):
        asked, status = self.running.pop(name), result["status"]
        values = _values(result, self.asked.objectives) if status == "finished" else None
        bad = status in ("pruned", "diverged") and len(self.asked.objectives) == 1
        state = TrialState.COMPLETE if values else TrialState.PRUNED if bad else TrialState.FAIL
        with _asking(self.storage), contextlib.suppress(ValueError):  # another machine took it for dead, and took it up
            self.study.tell(asked, values, state=state)

    def leave(self):
        """Leaves the trials that are not over to whoever takes up the search."""
        for asked in self.running.values():
            self._leave(asked.number)

    def _leave(self, number):
        with _asking(self.storage), contextlib.suppress(ValueError):
            left = self.study.tell(number, state=TrialState.FAIL)
            take_up(self.study, left)

    def lines(self):
        """How many points there are and, of several objectives, the Pareto front."""
        with _asking(self.storage):
            known = self.study.get_trials(deepcopy=False)
            best = self.study.best_trials if len(self.asked.objectives) > 1 else []
        states = [trial.state.name.lower() for trial in known if AGAIN not in trial.user_attrs]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        found = [f"{len(states)} points: {counts}"]
        for trial in best:
            values = ", ".join(f"{o.name} {value:.4f}" for o, value in zip(self.asked.objectives, trial.values))
            point = ",".join(f"{path}={brief(value)}" for path, value in trial.params.items())
            found.append(f"Pareto front: {values}: {point}")
        return found


def take_up(study, left):
    """Has the point of a trial that was left be asked for again."""
    study.enqueue_trial(left.params, user_attrs={AGAIN: left.number})


def _values(result, objectives):
    """A finished run's values.

    Raises:
        UserError: 2, for a metric that it does not report.
    """
    found = []
    for objective in objectives:
        own = result["metrics"].get(objective.split, {}) if objective.split else result
        found.append(pick(own, objective.metric, f"search_objectives(): {objective.name}"))
    return found


def open_storage(folder, url):
    """Optuna's storage: behind a URL, or the file of a search's folder.

    Raises:
        UserError: 2, for one that is not reached; a password is not told.
    """
    if url is None:
        backend = optuna.storages.journal.JournalFileBackend(str(pathlib.Path(folder) / JOURNAL))
        return optuna.storages.JournalStorage(backend)
    timeout = {"connect_timeout": 10} if re.match("postgresql|mysql|mariadb", url) else {}
    own = {"heartbeat_interval": BEAT, "grace_period": GRACE, "heartbeat_stale_trial_callback": take_up}
    own["engine_kwargs"] = {"connect_args": timeout, "pool_pre_ping": True}
    try:
        with _quiet():
            try:
                return optuna.storages.RDBStorage(url, **own)
            except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
                time.sleep(2)  # another machine makes the tables at this moment
                return optuna.storages.RDBStorage(url, **own)
    except Exception as error:
        lines = [line for line in str(error.__cause__ or error).splitlines() if line.strip()] or [""]
        reason = f"{type(error).__name__}: {lines[0]}"
        reason = hidden(reason.replace(url, hidden(url)))
        raise UserError(2, f"--storage: {hidden(url)}: not reached: {reason}") from None


class Pruning(NamedTuple):
    """Watches a run from the process that trains it, and ends it where it is not worth going on with."""

    folder: Any  # of the search
    storage: str | None
    study: str
    trial: int  # Optuna's id
    metric: str  # on validation
    pruner: str

    def __call__(self, run, folder, steps):
        """A run as the generator that loop.run gives, of so many steps, in a folder.

        The number of an evaluation is what pruners take for the resource that was spent. The last one ends nothing.
        """
        trial = None
        try:
            asked = run.send(None)
            while True:
                try:
                    answer = yield asked
                except Exception as error:
                    asked = run.throw(error)
                    continue
                evaluated = getattr(asked, "role", None) == "validation"
                asked = run.send(answer)
                if evaluated:
                    with _asking(self.storage):
                        trial = trial or self._trial()
                        step = self._bad_at(trial, folder)
                    if step is not None and step < steps:
                        run.throw(UserError(0, f"pruned by {self.pruner} at step {step}"))
        except StopIteration as end:
            return end.value

    def _bad_at(self, trial, folder):
        """The step at which a run is not worth going on with; None where it is."""
        rows = [row for row in runs.read_rows(folder) if row["split"] == "validation"]
        for number, row in enumerate(rows, start=1):
            trial.report(row[self.metric], number)  # what it knows already it leaves as it is
        return rows[-1]["step"] if rows and trial.should_prune() else None

    def _trial(self):
        storage = open_storage(self.folder, self.storage)
        own = {"sampler": optuna.samplers.RandomSampler(), "pruner": PRUNERS[self.pruner]()}
        return optuna.Trial(optuna.load_study(study_name=self.study, storage=storage, **own), self.trial)


class _Sampler(optuna.samplers.BaseSampler):
    """A sampler of Optuna's that draws for each trial by (seed, its number), on whatever machine it is asked for."""

    def __init__(self, asked, seed):
        self.asked, self.seed, self.own = asked, seed, None
        self._renew(0)

    def _renew(self, number):
        seed = (self.seed + 1) * 1_000_003 + number
        samplers = optuna.samplers
        match self.asked.sampler:
            case "grid":
                self.own = samplers.GridSampler(grid(self.asked.space), seed=self.seed)
            case "qmc":  # its sequence is one for all
                self.own = samplers.QMCSampler(scramble=True, seed=self.seed, warn_independent_sampling=False)
            case "random":
                self.own = samplers.RandomSampler(seed=seed % 2**31)
            case "tpe":
                self.own = samplers.TPESampler(seed=seed % 2**31, multivariate=True, constant_liar=True)
            case "cmaes":
                self.own = samplers.CmaEsSampler(seed=seed % 2**31, warn_independent_sampling=False)

    def before_trial(self, study, trial):
        self._renew(trial.number)
        self.own.before_trial(study, trial)

    def infer_relative_search_space(self, study, trial):
        return self.own.infer_relative_search_space(study, trial)

    def sample_relative(self, study, trial, search_space):
        return self.own.sample_relative(study, trial, search_space)

    def sample_independent(self, study, trial, param_name, param_distribution):
        return self.own.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study, trial, state, values):
        if self.asked.sampler != "grid":  # which would stop a loop of Optuna's, and there is none
            self.own.after_trial(study, trial, state, values)


@contextlib.contextmanager
def _quiet():
    """Without Optuna's warnings and its log: what matters is told by ours."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


@contextlib.contextmanager
def _asking(url):
    """Around calls of Optuna that ask its storage.

    Raises:
        UserError: 5, where it can no longer be reached.
    """
    try:
        with _quiet():
            yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        reason = hidden(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        raise UserError(5, f"--storage: {hidden(url or JOURNAL)}: lost: {reason}; the same command goes on") from error
