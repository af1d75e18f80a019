"""Runs the trials of a sweep: each once, by worker processes, and goes on with those that are not finished."""

import collections
import contextlib
import dataclasses
import pathlib
import sys
import time
from typing import Any, NamedTuple

from research import config as configs
from research import loop, runs, signals
from research.errors import UserError
from research.setup import resolve
from research.studies import population, workers
from research.studies.sweep import Trial, trials_of

LOGS = "logs"  # folder of what trials print
SAVING = 60.0  # seconds to wait for a process of a driver that was killed, which still saves a trial's state
PATIENCE = 10.0  # seconds that a trial which takes too long has to save its state
HUNG, STOPPED = 8, 143  # exit codes
OVER = ("finished", "diverged", "pruned")  # statuses of runs that would end so again


class Plan(NamedTuple):
    """A sweep, and where it runs."""

    folder: pathlib.Path
    file: str  # of the config
    size: str
    config: Any  # complete: what all trials have in common
    trials: list[Trial]
    asked: dict  # what the command line said, for a reader
    examples: int | None = None  # that a run trains on, once the data are known


class Job(NamedTuple):
    """Trials that a worker does together."""

    trials: tuple[Trial, ...]
    tries: int = 0  # times that its process has vanished


def read_plan(folder):
    """The sweep that a folder holds; None where there is none.

    Raises:
        UserError: 2, where sweep.json is none of ours.
    """
    path = runs.as_folder(folder) / "sweep.json"
    saved = runs.read_json(path)
    if saved is None:
        return None
    try:
        if saved["format"] != 1:
            raise ValueError(saved["format"])
        config, points = configs.from_json(saved["config"]), [trial["overrides"] for trial in saved["trials"]]
        return Plan(path.parent, saved["file"], saved["size"], config, trials_of(config, points)[0], saved["asked"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(2, f"{path}: not a sweep of ours, of format 1") from error


def check_folder(plan):
    """Whether this sweep may be run in its folder: an empty one, its own, or that of a part of it.

    Raises:
        UserError: 2 where another sweep, a run or something else is there, 5 where it cannot be written.
    """
    before = read_plan(plan.folder)
    if before is None:
        # What a process leaves that is killed before sweep.json is whole.
        begun = lambda name: name == "lock" or name.startswith("sweep.json")
        if plan.folder.is_dir() and not all(begun(child.name) for child in plan.folder.iterdir()):
            raise UserError(2, f"{plan.folder}: not empty, and no folder of a sweep; choose another --workdir")
        runs.check_writable(plan.folder)
        return
    if differing := configs.conflicts(before.config, plan.config):
        paths = "; ".join(f"config.{path} {there!r} there, {here!r} here" for path, there, here in differing)
        raise UserError(2, f"{plan.folder}: holds a sweep of another config: {paths}; choose another --workdir")
    if before.asked.get("search") != plan.asked.get("search"):
        raise UserError(
            2, f"{plan.folder}: holds a sweep of other points, asked for otherwise; choose another --workdir"
        )
    if gone := {trial.name for trial in before.trials} - {trial.name for trial in plan.trials}:
        raise UserError(
            2,
            f"{plan.folder}: holds another sweep: {len(gone)} of its trials are not asked for here, {min(gone)} among "
            "them; choose another --workdir, or ask for more points and not for others",
        )


def check(plan, worker, metrics=()):
    """The plan with what the data determine filled in, each of its trials checked as training would.

    Args:
        worker: does it, so that no device is held here; nothing is written.
        metrics: that its runs shall evaluate, too.

    Raises:
        UserError: with the trial's name.
    """
    asked = [(trial.name, configs.to_json(trial.config)) for trial in plan.trials]
    for metric in metrics:
        # Only checks whether the runs evaluate the metric, so any direction will do.
        judged = configs.override(plan.config, {"eval.metric": metric})
        judged = judged if judged.eval.direction else configs.override(judged, {"eval.direction": "max"})
        asked.append((f"metric {metric}", configs.to_json(judged)))
    worker.ask(check_trials, asked, plan.folder)
    known = lambda trial, config, steps, _: trial._replace(config=configs.from_json(config), steps=steps)
    found = worker.answer()
    trials = [known(trial, *own) for trial, own in zip(plan.trials, found)]
    return plan._replace(trials=trials, examples=found[0][2])


def check_trials(trials, folder):
    """[(config as JSON, steps, examples)] of trials [(name, config as JSON)]; those that differ in their seed alone are
    built once."""
    found, built = [], set()
    for name, data in trials:
        try:
            config = configs.from_json(data)
            config, dataset, mesh = resolve(config, None, runs.read_tokenizer(folder / name))
            finished = runs.check(folder / name, config, dataset)
            examples = dataset.count(config.data.splits.train)
            steps = configs.durations(config, examples)["train"]
            found.append((configs.to_json(config), steps, examples))
            same = str(found[-1][0] | {"seed": None})
            if finished is None and same not in built:
                loop.prepare_run(config, dataset, mesh, folder / name)
                built.add(same)
        except UserError as error:
            raise UserError(error.code, f"trial {name}: {error}") from error
    return found


def jobs_of(plan, most, processes):
    """What is left to do of a sweep: trials by themselves, or in populations.

    Args:
        most: members of a population; None for as many as give all processes something to do.
    """
    left = [trial for trial in plan.trials if not is_over(_place(plan, trial))]
    if most is None:
        most = min(population.MOST, -(-len(left) // processes)) or 1
    return [Job(trials) for trials in population.grouped(left, most)]


def run(plan, jobs, view, hire, *, processes=1, trial_seconds=None, search=None):
    """Runs what is not finished of a sweep that was checked, and leaves it in its folder.

    Args:
        jobs: of jobs_of.
        view: of research.studies.watch; shows what is done.
        hire: share of the machine -> Worker.
        processes: how many work at a time.
        trial_seconds: how long a trial may take, and a population for each of its members; for ever, if not given.
        search: research.studies.search.Search, which adds trials to the plan while it runs; the jobs are none then.

    Returns:
        the exit code of the first trial that failed, 0 where none did; one that diverged has not failed.

    Raises:
        UserError: 7 where another process runs this sweep, 130 and 143 where a signal stopped it.
    """
    # Several machines may search in one folder: their storage says who does what.
    alone = contextlib.nullcontext() if search and search.storage else runs.lock(plan.folder)
    with alone, signals.caught() as stop:
        check_folder(plan)  # again, under the lock
        _begin(plan)
        if search:
            search.begin()
        waiting = collections.deque(jobs)
        slots = [Slot(share) for share in workers.shares(processes if search else max(1, min(processes, len(jobs))))]
        codes = []
        try:
            while not stop:
                for slot in slots:
                    if slot.job is None and not waiting and search:
                        waiting.extend(search.more())
                    if slot.job is None and waiting:
                        _give(plan, slot, waiting.popleft(), hire, search)
                if not any(slot.job for slot in slots):
                    break
                view.show([trial.name for slot in slots if slot.job for trial in slot.job.trials])
                for slot in _ready(slots, seconds=0.5):
                    codes += _take(plan, slot, waiting)
                for slot in slots:
                    if trial_seconds and slot.job and slot.seconds() > trial_seconds * len(slot.job.trials):
                        codes += _too_slow(plan, slot, trial_seconds)
                if search:
                    search.look()
        finally:
            busy = [slot.worker for slot in slots if slot.job]
            for worker in busy:
                worker.stop()
            for worker in busy:
                worker.end(workers.GRACE)
            if search:
                search.look()
                search.leave()
        view.show([])
        if stop:
            raise signals.stopped(stop, plan.folder)
    return next((code for code in codes if code), 0)


@dataclasses.dataclass
class Slot:
    """A share of the machine, who has it, and what is done there."""

    share: workers.Share
    worker: workers.Worker | None = None
    job: Job | None = None
    began: float = 0.0

    def seconds(self):
        return time.monotonic() - self.began


def _begin(plan):
    """Writes sweep.json; `check_folder` was passed, and nobody else writes another sweep's there."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    saved = {
        "format": 1,
        "file": plan.file,
        "size": plan.size,
        "asked": plan.asked,
        "config": configs.to_json(plan.config),
        "trials": [{"folder": trial.name, "overrides": trial.overrides} for trial in plan.trials],
    }
    runs.write_json(plan.folder / "sweep.json", saved)
    (plan.folder / LOGS).mkdir(exist_ok=True)


def is_over(folder):
    """Whether nothing is left to do in a trial's folder."""
    return runs.read_result(folder).get("status") in OVER


def _give(plan, slot, job, hire, search):
    slot.worker = hire(slot.share)
    slot.job, slot.began = job, time.monotonic()
    through = search.through if search else lambda trial: None
    members = [(_place(plan, trial), configs.to_json(trial.config), through(trial)) for trial in job.trials]
    slot.worker.ask(train_trials, members, plan.file, plan.size, _log(plan, job))


def _ready(slots, seconds):
    found = workers.wait([slot.worker for slot in slots if slot.job], seconds)
    return [slot for slot in slots if slot.worker in found]


def _take(plan, slot, waiting):
    """The exit codes of a job's trials. Those whose process vanished, or was told to stop by another, are tried again
    once."""
    job, slot.job = slot.job, None
    try:
        found = slot.worker.answer()
    except EOFError as gone:
        slot.worker.end()
        found = [(STOPPED, str(gone))] * len(job.trials)
    except RuntimeError as defect:
        slot.worker.end()  # its memory may be full
        found = [(1, str(defect))] * len(job.trials)
    again = [
        trial for trial, (code, _) in zip(job.trials, found) if code == STOPPED and not is_over(_place(plan, trial))
    ]
    if again and not job.tries:
        waiting.append(Job(tuple(again), tries=1))
        found = [(0, "") if code == STOPPED else (code, reason) for code, reason in found]
    own = zip(job.trials, found)
    return [_failed(plan, trial, f"{reason}; see {_log(plan, job)}", code) for trial, (code, reason) in own if code]


def _too_slow(plan, slot, trial_seconds):
    """The exit codes of trials that took too long, and whose worker is ended."""
    job, slot.job = slot.job, None
    slot.worker.dump_stacks()
    slot.worker.stop()
    slot.worker.end(PATIENCE)
    reason = f"took longer than --trial_seconds={trial_seconds:g}; where it stood is in {_log(plan, job)}"
    return [_failed(plan, trial, reason, HUNG) for trial in job.trials]


def _failed(plan, trial, reason, code):
    """Records in the trial's folder that it failed, unless it is over; returns its exit code.

    Where the folder cannot be written, or another process writes it, the code alone tells: that stops no other trial.
    """
    folder = _place(plan, trial)
    if is_over(folder):
        return 0
    with contextlib.suppress(UserError), runs.lock(folder):
        if not runs.is_begun(folder):
            runs.write_config(folder, trial.config, plan.file, plan.size)
        runs.write_json(folder / "result.json", {"status": "failed", "reason": reason})
    return code


def _place(plan, trial):
    return plan.folder / trial.name


def _log(plan, job):
    return plan.folder / LOGS / f"{job.trials[0].name}.txt"


def work(settings, plan, job):
    """Trains a job's trials in a process for which nobody waits, and records those that fail.

    Args:
        settings: called first: a process's own.
    """
    settings()
    members = [(_place(plan, trial), configs.to_json(trial.config), None) for trial in job.trials]
    log = _log(plan, job)
    try:
        found = train_trials(members, plan.file, plan.size, log)
    except Exception as defect:
        found = [(1, f"{type(defect).__name__}: {defect}")] * len(members)
    for trial, (code, reason) in zip(job.trials, found):
        if code:
            _failed(plan, trial, f"{reason}; see {log}", code)


def begin(plan):
    """Writes sweep.json of a plan whose jobs other processes will do."""
    with runs.lock(plan.folder):
        check_folder(plan)
        _begin(plan)


def train_trials(members, file, size, log):
    """Trains trials [(folder, config as JSON, loop.train's through)] in this process, which prints into the file `log`.

    Returns:
        [(exit code, reason)], (0, "") of those that finished or diverged.

    Raises:
        Exception: what is not foreseen, once all that can be done is done.
    """
    workers.write_to(log)
    members = [(configs.from_json(data), folder, through) for folder, data, through in members]
    found, until = dict.fromkeys((folder for _, folder, _ in members), (7, "")), time.monotonic() + SAVING
    while left := [member for member in members if found[member[1]][0] == 7]:
        results = _trained(left, file, size)
        found |= {folder: _ending(result) for (_, folder, _), result in zip(left, results)}
        if time.monotonic() > until:
            break
        if 7 in [code for code, _ in found.values()]:  # a process of a driver that was killed is still saving
            time.sleep(0.5)
    return list(found.values())


def _trained(members, file, size):
    """[result or exception] of each; those that no program can be made for together are trained one by one."""
    *pairs, through = zip(*members)
    results = population.train(list(zip(*pairs)), file=file, size=size, through=through) if len(members) > 1 else None
    return [_alone(*member, file, size) for member in members] if results is None else results


def _alone(config, folder, through, file, size):
    try:
        return loop.train(config, folder, file=file, size=size, through=through)
    except Exception as error:
        return error


def _ending(result):
    """(exit code, reason) of what a run returned or raised; to diverge or to be pruned is no failure."""
    if not isinstance(result, Exception):
        return 0, ""
    if not isinstance(result, UserError):
        raise result
    print(f"error: {result}" if result.code else str(result), file=sys.stderr)
    return (0, "") if result.code in (0, 6) else (result.code, str(result))
