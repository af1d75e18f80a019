"""Searches: what is asked for, each point once, what is pruned, and what several drivers and dead ones leave."""

import contextlib
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import optuna
import pytest
import sqlalchemy
from conftest import ROOT, make_config, run_script
from made_runs import make_run
from optuna.trial import TrialState

from research import config as configs
from research import runs
from research.errors import UserError
from research.studies import gather, report, schedule, search, space, watch
from research.studies.space import Objective

RATE, DROPOUT = "optimizer.learning_rate", "model.dropout"
SPACE = {RATE: {"low": 1e-3, "high": 1e-1, "log": True}, DROPOUT: {"low": 0.0, "high": 0.5}}
GRID = {RATE: {"choices": (0.1, 0.01)}, DROPOUT: {"low": 0.0, "high": 0.5, "step": 0.25}}
ONE = [{"metric": "loss", "direction": "min"}]
TWO = [*ONE, {"metric": "parameters", "split": "", "direction": "min"}]


def asked_of(own=SPACE, objectives=ONE, sampler="random", pruner=None):
    defined = {"search_space": lambda: own, "search_objectives": lambda: objectives}
    return space.read(defined, make_config(), sampler, pruner)


def plan_of(folder, asked, **overrides):
    config = make_config(**overrides)
    return schedule.Plan(folder, "configs/x.py", "tiny", config, [], {"search": asked.as_json()}, examples=64)


def make_search(folder, asked, **own):
    """A search that has begun, as schedule.run begins it."""
    folder.mkdir(exist_ok=True)
    found = search.Search(plan_of(folder, asked), asked, **own)
    found.begin()
    return found


def train(found, trial, status="finished", accuracy=0.9):
    """A trial's run folder, without the training."""
    folder = found.plan.folder / trial.name
    shutil.rmtree(folder, ignore_errors=True)
    make_run(folder, 0, accuracy, status)
    runs.write_config(folder, trial.config, found.plan.file, found.plan.size)


def complete(found, most=100):
    """Trains what a search asks for, `most` trials of it, without the training; their points."""
    points = []
    while len(points) < most and (jobs := found.more()):
        for trial in (trial for job in jobs for trial in job.trials):
            train(found, trial, accuracy=0.9 - trial.overrides.get(RATE, 0.0))
            points.append(trial.overrides)
        found.look()
    return points


def states(found):
    return [trial.state for trial in found.study.get_trials()]


@pytest.mark.parametrize("sampler", space.SAMPLERS)
def test_a_sampler_draws_as_many_points_as_asked_in_the_space_and_the_same_again(sampler, tmp_path):
    asked = asked_of(GRID if sampler == "grid" else SPACE, sampler=sampler)
    first, second = (complete(make_search(tmp_path / name, asked, count=12)) for name in "ab")
    assert first == second and len(first) == (6 if sampler == "grid" else 12)
    assert len({tuple(point.values()) for point in first}) == len(first)
    for point in first:
        assert 1e-3 <= point[RATE] <= 1e-1 and 0 <= point[DROPOUT] <= 0.5
    if sampler == "grid":
        assert {point[DROPOUT] for point in first} == {0.0, 0.25, 0.5}


@pytest.mark.parametrize("sampler", ("tpe", "cmaes"))
def test_samplers_that_learn_come_nearer_to_the_best(sampler, tmp_path):
    """complete() has the lowest rates best: later points are lower than those at random."""
    points = complete(make_search(tmp_path / "s", asked_of(sampler=sampler), count=40))
    middle = lambda some: sorted(point[RATE] for point in some)[len(some) // 2]
    assert middle(points[25:]) < 0.5 * middle(points[:10])


def test_a_search_goes_on_where_it_was_and_takes_more_points(tmp_path):
    asked, place = asked_of(), tmp_path / "s"
    whole = complete(make_search(tmp_path / "whole", asked, count=6))
    points = complete(make_search(place, asked, count=6), most=4)
    assert points + complete(make_search(place, asked, count=6)) == whole
    assert complete(make_search(place, asked, count=6)) == []
    again = make_search(place, asked, count=8)
    assert len(complete(again)) == 2 and len(again.plan.trials) == 8
    assert [trial.overrides for trial in again.plan.trials][:6] == whole


def test_what_a_dead_driver_left_is_taken_up_and_told_if_it_is_over(tmp_path):
    asked, place = asked_of(), tmp_path / "s"
    dead = make_search(place, asked, count=3, at_once=2)
    left = [trial for job in dead.more() for trial in job.trials]
    train(dead, left[0])  # and the driver dies before it tells
    found = make_search(place, asked, count=3)
    assert complete(found)[0] == left[1].overrides
    assert len([state for state in states(found) if state == TrialState.COMPLETE]) == 3
    assert len(list(place.glob("*/config.json"))) == 3


def test_what_failed_before_its_driver_died_is_tried_again(tmp_path):
    asked, place = asked_of(), tmp_path / "s"
    dead = make_search(place, asked, count=1)
    (job,) = dead.more()
    train(dead, job.trials[0], "failed")
    found = make_search(place, asked, count=1)
    (again,) = found.more()
    found.look()
    assert again == job and states(found) == [TrialState.FAIL, TrialState.RUNNING]


def test_a_stopped_driver_leaves_its_trials_to_others(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    one, other = (make_search(tmp_path / name, asked_of(), count=2, storage=url) for name in "ab")
    (job,) = one.more()
    one.leave()
    points = complete(other)
    assert points[0] == job.trials[0].overrides and len(points) == 2 and complete(one) == []
    assert one.lines() == ["2 points: 1 fail, 1 complete"]


def test_two_drivers_share_the_points_of_one_storage(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    own = {"count": 6, "storage": url}
    one, other = (make_search(tmp_path / name, asked_of(GRID, sampler="grid"), **own) for name in "ab")
    points = []
    for found in (one, other) * 3:
        points += complete(found, most=1)
    assert len({tuple(point.values()) for point in points}) == 6 and complete(one) == complete(other) == []


def test_machines_without_a_sign_of_life_lose_their_trials(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "BEAT", 1)
    monkeypatch.setattr(search, "GRACE", 3)
    own = {"count": 2, "storage": f"sqlite:///{tmp_path}/study.db"}
    dead, one, other = (make_search(tmp_path / name, asked_of(), **own) for name in "abc")
    ((lost,), (kept,)) = ([trial for job in found.more() for trial in job.trials] for found in (dead, one))
    time.sleep(2.5)
    one.look()  # a sign of life
    time.sleep(2)
    assert complete(other) == [lost.overrides]
    time.sleep(3.5)
    assert complete(other) == [kept.overrides]
    train(one, kept)
    one.look()  # too late, and no harm
    assert states(one) == [TrialState.FAIL] * 2 + [TrialState.COMPLETE] * 2


def test_a_point_twice_is_trained_once(tmp_path):
    own = {RATE: {"choices": (0.1, 0.01)}}
    found = make_search(tmp_path / "s", asked_of(own), count=12)
    points = complete(found)
    assert len(points) == 2 and states(found) == [TrialState.COMPLETE] * 12
    values = {trial.params[RATE]: trial.value for trial in found.study.get_trials()}
    assert values == {0.1: pytest.approx(0.2), 0.01: pytest.approx(0.11)}
    together = make_search(tmp_path / "t", asked_of(own), count=12, at_once=12)
    assert sum(len(job.trials) for job in together.more()) == 2


def test_a_point_that_another_machine_has_trained_is_not_trained_here(tmp_path):
    own = {"storage": f"sqlite:///{tmp_path}/study.db"}
    asked = asked_of({RATE: {"choices": (0.1, 0.01)}})
    assert len(complete(make_search(tmp_path / "a", asked, count=8, **own))) == 2
    other = make_search(tmp_path / "b", asked, count=16, **own)
    assert complete(other) == [] and states(other) == [TrialState.COMPLETE] * 16
    assert not list((tmp_path / "b").glob("*/config.json"))


def test_a_search_that_is_stopped_leaves_its_trials(tmp_path, monkeypatch):
    class Idle:
        ask = stop = end = lambda self, *_: None

    def wait(busy, seconds):
        stop.append(signal.SIGTERM)
        return []

    stop, asked = [], asked_of()
    monkeypatch.setattr(schedule.signals, "caught", lambda: contextlib.nullcontext(stop))
    monkeypatch.setattr(schedule.workers, "wait", wait)
    found = search.Search(plan_of(tmp_path / "s", asked), asked, storage=f"sqlite:///{tmp_path}/study.db")
    with watch.View(found.plan, io.StringIO(), 20) as view, pytest.raises(UserError) as raised:
        schedule.run(found.plan, [], view, lambda share: Idle(), search=found)
    assert raised.value.code == 143 and states(found) == [TrialState.FAIL, TrialState.WAITING]


def test_how_trials_end_is_told(tmp_path):
    found = make_search(tmp_path / "s", asked_of(), count=5)
    for status in ("finished", "diverged", "pruned", "failed"):
        (job,) = found.more()
        train(found, job.trials[0], status)
        found.look()
    (job,) = found.more()
    train(found, job.trials[0], "stopped")
    found.look()
    kinds = TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
    assert states(found) == list(kinds)


def test_a_point_that_is_no_config_is_told_and_stops_no_other(tmp_path, capsys):
    own = {"optimizer.warmup_steps": {"choices": (1, "none")}, "optimizer.warmup_epochs": {"choices": (1.0, "none")}}
    found = make_search(tmp_path / "s", asked_of(own, sampler="grid"))
    assert len(complete(found)) == 3 and states(found).count(TrialState.FAIL) == 1
    assert "given together with" in capsys.readouterr().err


def test_trials_of_one_program_are_asked_for_together(tmp_path):
    found = make_search(tmp_path / "s", asked_of(), count=5, at_once=3)
    assert [[len(job.trials) for job in found.more()] for _ in range(3)] == [[3], [2], []]
    mixed = make_search(tmp_path / "t", asked_of({"data.batch_size": {"choices": (8, 16)}, **SPACE}), at_once=8)
    jobs = mixed.more()
    assert sum(len(job.trials) for job in jobs) == 8 and len(jobs) == 2


def test_of_several_objectives_the_front_is_told_and_reported(tmp_path):
    found = make_search(tmp_path / "s", asked_of(GRID, TWO, "grid"))
    schedule._begin(found.plan._replace(trials=[]))
    points = complete(found)
    assert len(points) == 6
    front = [line for line in found.lines() if line.startswith("Pareto front")]
    assert len(front) == 3 and all("validation/loss 0.1100, parameters 5.0000" in line for line in front)
    made = report.make([tmp_path / "s"], ["validation/loss"])
    assert report.make([make_single(tmp_path / "one")], ["validation/loss"]).front is None
    (note,) = [note for note in made.notes if note.startswith("Pareto front of")]
    assert "validation loss, nats (min), parameters (min)" in note and note.count("learning_rate=0.01") == 3
    report.write(made, tmp_path / "out")
    assert (tmp_path / "out" / "front_validation_loss_nats_min_parameters_min_.png").is_file()


def make_single(folder):
    """A folder of a search for one objective."""
    found = make_search(folder, asked_of(), count=2)
    schedule._begin(found.plan)
    complete(found)
    return folder


def test_of_several_objectives_a_run_that_diverged_is_no_point(tmp_path):
    found = make_search(tmp_path / "s", asked_of(objectives=TWO), count=1)
    (job,) = found.more()
    train(found, job.trials[0], "diverged")
    found.look()
    assert states(found) == [TrialState.FAIL]


def rows_of(folder, losses):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f'{{"step": {i}, "split": "validation", "loss": {loss}}}\n' for i, loss in losses.items())
    (folder / "metrics.jsonl").write_text(text)


class Asks:
    """A request of an evaluation on validation."""

    role = "validation"


@pytest.mark.parametrize("pruner", space.PRUNERS)
def test_a_bad_run_is_ended_and_a_good_one_is_not(pruner, tmp_path):
    found = make_search(tmp_path / "s", asked_of(pruner=pruner), count=40)

    def run_of(folder, losses):
        for step in losses:
            answer = yield "step"
            assert answer == "step"
            rows_of(folder, {i: loss for i, loss in losses.items() if i <= step})
            assert (yield Asks()) == "sums"
        return "result"

    ended = []
    for number in range(20):
        (job,) = found.more()
        (trial,) = job.trials
        losses = {step: (1.0 if number % 2 else 2.0 + number) / step for step in range(1, 9)}
        run = found.through(trial)(run_of(found.plan.folder / trial.name, losses), found.plan.folder / trial.name, 8)
        steps, request = 0, next(run)
        try:
            while True:
                steps += isinstance(request, Asks)
                request = run.send("sums" if isinstance(request, Asks) else request)
        except StopIteration as end:
            assert end.value == "result" and steps == 8
            train(found, trial)
        except UserError as error:
            assert error.code == 0 and str(error) == f"pruned by {pruner} at step {steps}" and steps < 8
            train(found, trial, "pruned")
            ended.append(number)
        found.look()
    assert ended and not [number for number in ended if number % 2] and len(ended) >= 4


def test_the_last_evaluation_ends_nothing(tmp_path):
    found = make_search(tmp_path / "s", asked_of(pruner="median"), count=8)
    for number in range(6):
        (job,) = found.more()
        place = found.plan.folder / job.trials[0].name

        def run():
            rows_of(place, {1: 9.0 if number == 5 else 1.0})
            yield Asks()
            yield "save"

        watched = found.through(job.trials[0])(run(), place, 1)
        next(watched)
        assert watched.send("sums") == "save"
        train(found, job.trials[0])
        found.look()


def test_what_a_watched_run_raises_or_is_told_goes_through(tmp_path):
    found = make_search(tmp_path / "s", asked_of(pruner="median"))
    (job,) = found.more()

    def run():
        try:
            yield 1
        except ValueError as error:
            yield str(error)
        raise UserError(6, "gone")

    watched = found.through(job.trials[0])(run(), tmp_path, 8)
    assert next(watched) == 1 and watched.throw(ValueError("told")) == "told"
    with pytest.raises(UserError, match="gone"):
        watched.send(None)


def test_what_a_storage_says_of_its_url_is_told_without_the_password(tmp_path, monkeypatch):
    def refuse(url, **_):
        raise ValueError(f"cannot use {url}")

    monkeypatch.setattr("optuna.storages.RDBStorage", refuse)
    with pytest.raises(UserError, match="cannot use x://me:\\*\\*\\*@there/db") as raised:
        search.open_storage(tmp_path, "x://me:secret@there/db")
    assert "secret" not in str(raised.value)


def test_tables_that_two_machines_make_at_once_are_no_error(tmp_path, monkeypatch):
    real, calls = optuna.storages.RDBStorage, []

    def make(url, **own):
        calls.append(url)
        if len(calls) == 1:
            raise sqlalchemy.exc.IntegrityError("CREATE TABLE studies", {}, Exception("duplicate key"))
        return real(url, **own)

    monkeypatch.setattr("optuna.storages.RDBStorage", make)
    assert search.open_storage(tmp_path, f"sqlite:///{tmp_path}/study.db").get_all_studies() == []
    assert len(calls) == 2


def test_a_storage_that_is_lost_is_one_line(tmp_path):
    own = {"storage": f"sqlite:///{tmp_path}/study.db", "count": 3}
    found = make_search(tmp_path / "s", asked_of(pruner="median"), **own)
    (job,) = found.more()
    with sqlalchemy.create_engine(own["storage"]).begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE trials"))
    train(found, job.trials[0])
    for call in (found.more, found.look, found.begin, found.lines):
        with pytest.raises(UserError, match=r"study.db: lost: .*; the same command goes on") as raised:
            call()
        assert raised.value.code == 5


BAD_SPACES = [
    ({RATE: 0.1}, "0.1 is none of {choices} and {low, high, log, step}"),
    ({RATE: {"low": 0.1, "hihg": 1.0}}, "none of"),
    ({RATE: {"low": 0.1}}, "'high'"),
    ({RATE: {"low": 1.0, "high": 0.1}}, "low <= high"),
    ({RATE: {"low": 0.0, "high": 0.1, "log": True}}, "log"),
    ({RATE: {"low": "a", "high": "b"}}, "search_space(): optimizer.learning_rate"),
    ({RATE: {"choices": ()}}, "choices are some values"),
    ({RATE: {"choices": (1.0,), "low": 1.0}}, "stand alone"),
    ({}, "search_space(): gives no {path: what is searched}"),
]


@pytest.mark.parametrize(("own", "part"), BAD_SPACES, ids=str)
def test_a_space_that_is_none_is_named(own, part):
    with pytest.raises(UserError) as raised:
        asked_of(own)
    assert raised.value.code == 2 and part in str(raised.value)


@pytest.mark.parametrize(
    ("own", "part"),
    [
        ({"sampler": "tp"}, "--search: 'tp' is unknown; known are cmaes, grid, qmc, random, tpe; did you mean tpe?"),
        ({"pruner": "medain"}, "--prune: 'medain' is unknown"),
        ({"sampler": "grid"}, "--search=grid: search_space(): optimizer.learning_rate: needs choices, or a step"),
        ({"pruner": "median", "objectives": TWO}, "--prune=median: goes by one objective"),
        ({"objectives": [{"metric": "loss", "direction": "down"}]}, "loss: direction: 'down' is unknown"),
        ({"objectives": [{"metric": "loss", "direction": "min", "split": "test"}]}, "test is for reporting"),
        ({"objectives": [{"metric": "seconds", "direction": "min"}]}, "give split ''"),
        (
            {"objectives": [{"metric": "loss", "direction": "max"}]},
            "direction max would search for the worst; give min",
        ),
        ({"objectives": [{"metrics": "loss"}]}, "search_objectives(): "),
        ({"objectives": []}, "search_objectives(): gives none"),
    ],
    ids=str,
)
def test_a_search_that_is_none_is_named(own, part):
    with pytest.raises(UserError) as raised:
        asked_of(**own)
    assert raised.value.code == 2 and part in str(raised.value)


def test_bounds_have_the_type_of_their_field():
    own = {
        DROPOUT: {"low": 0, "high": 1 / 2},
        RATE: {"low": 1, "high": 2},
        "data.batch_size": {"low": 8.0, "high": 16.0},
    }
    found = asked_of(own).space
    kinds = {path: type(space.distribution(path, entry)).__name__ for path, entry in found.items()}
    assert kinds == {DROPOUT: "FloatDistribution", RATE: "FloatDistribution", "data.batch_size": "IntDistribution"}
    stepped = asked_of({RATE: {"low": 1, "high": 2, "step": 1}}, sampler="grid").space
    assert space.grid(stepped) == {RATE: [1.0, 2.0]} and isinstance(stepped[RATE]["step"], float)
    with pytest.raises(UserError, match=r"search_space\(\): config.data.batch_size: 8.5 is not int"):
        asked_of({"data.batch_size": {"low": 8.5, "high": 16}})


def test_without_objectives_it_is_what_the_config_is_judged_by():
    config = make_config(eval__metric="loss", eval__direction="min")
    found = space.read({"search_space": lambda: SPACE}, config, "tpe", None)
    assert found.objectives == [Objective("loss", "min", "validation")]


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("postgresql://me:secret@127.0.0.1:1/studies", "postgresql://me:***@127.0.0.1:1/studies: not reached"),
        ("nowhere", "nowhere: not reached"),
        ("sqlite:////no/such/folder/study.db", "not reached"),
    ],
)
def test_a_storage_that_is_not_reached_is_named_without_its_password(url, part, tmp_path):
    with pytest.raises(UserError) as raised:
        search.Search(plan_of(tmp_path / "s", asked_of()), asked_of(), storage=url)
    assert raised.value.code == 2 and part in str(raised.value) and "secret" not in str(raised.value)
    assert not (tmp_path / "s").exists()


def test_the_search_spaces_of_the_configs_fit_them():
    found = []
    for path in sorted((ROOT / "configs").glob("*.py")):
        defined = configs.load_names(path)
        if "search_space" in defined:
            config, file, size = configs.load_file(f"{path}:tiny")
            asked = space.read(defined, config, "tpe", "median")
            plan = schedule.Plan(path, file, size, config, [], {})
            assert len(space.corners(plan, asked)) > len(asked.space)
            found.append(path.stem)
    assert found == ["digits_cnn", "shakespeare_gpt"]


@pytest.mark.parametrize(
    ("body", "flags", "part"),
    [
        (
            "space = {'optimizer.lerning_rate': {'low': 0.1, 'high': 0.2}}",
            [],
            "did you mean config.optimizer.learning_rate",
        ),
        ("space = {'optimizer.learning_rate': {'low': -1.0, 'high': 0.2}}", [], "config.optimizer.learning_rate"),
        ("space = {'optimizer.learning_rate': {'choices': ('fast',)}}", [], "'fast' is not float"),
        ("space = 1 / 0", [], "ZeroDivisionError"),
        ("", ["--config.model.dropout=0.1"], "--config.model.dropout: given, and searched; leave it out"),
        ("", ["--axis=seed=0:2"], "--search: gives the points itself"),
        ("", ["--trials=0"], "--trials: 0 points"),
        ("", ["--storage=nowhere://me:secret@there/db"], "nowhere://me:***@there/db: not reached"),
        ("def search_objectives(): return [{'metric': 'bleu', 'direction': 'max'}]", [], "'bleu' is not evaluated"),
    ],
    ids=str,
)
def test_a_mistake_in_a_search_is_one_line_and_nothing_is_written(body, flags, part, tmp_path, capsys):
    own = body if "def " in body else f"def search_space():\n    {body or 'space = SPACE'}\n    return space\n"
    own = own if "search_space" in own else f"def search_space(): return SPACE\n{own}\n"
    text = (ROOT / "configs" / "digits_cnn.py").read_text()
    (tmp_path / "mine.py").write_text(f"{text.replace('def search_space', 'def other')}\nSPACE = {SPACE}\n{own}")
    command = [f"--config={tmp_path}/mine.py:tiny", "--search=tpe", f"--workdir={tmp_path / 's'}", *flags]
    assert run_script("sweep", *command) == 2
    error = capsys.readouterr().err.splitlines()
    assert part in error[-1] and "secret" not in error[-1] and not (tmp_path / "s").exists()


def test_flags_of_a_search_are_of_no_sweep(tmp_path, capsys):
    config = f"--config={ROOT}/configs/digits_cnn.py:tiny"
    for flag in ("--trials=3", "--prune=median", "--storage=sqlite://"):
        assert run_script("sweep", config, "--axis=seed=0:2", flag, f"--workdir={tmp_path / 's'}") == 2
        assert "of a search; give --search" in capsys.readouterr().err
    found = make_search(tmp_path / "t", asked_of())
    schedule._begin(found.plan)
    assert run_script("sweep", f"--workdir={tmp_path / 't'}") == 2
    assert "holds a search; the command that began it" in capsys.readouterr().err


TINY = "--config=configs/digits_cnn.py:tiny"
SHORT = ["--config.model.name=mlp", "--config.model.widths=8", "--config.train.epochs=6"]


def test_a_search_with_populations_and_pruning_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    flags = [TINY, *SHORT, "--search=random", "--prune=halving", "--vectorize=3", f"--workdir={tmp_path / 's'}"]
    assert run_script("sweep", *flags, "--trials=6") == 0
    shown = capsys.readouterr().out
    statuses = [record.status for record in gather.read([tmp_path / "s"])]
    assert statuses.count("finished") >= 1 and statuses.count("pruned") >= 1 and len(statuses) == 6
    assert f"6 points: {statuses.count('finished')} complete" in shown.replace("6 points: 1 pruned, ", "6 points: ")
    pruned = next(record for record in gather.read([tmp_path / "s"]) if record.status == "pruned")
    assert pruned.reason.startswith("pruned by halving at step ") and pruned.starts[0]["together"] == 3
    steps = max(row["step"] for row in runs.read_rows(pruned.folder))
    assert f"at step {steps}" in pruned.reason and steps < 60
    assert run_script("sweep", *flags, "--trials=6") == 0 and capsys.readouterr().out == shown
    assert run_script("report", str(tmp_path / "s"), f"--output={tmp_path / 'out'}") == 0
    assert f"{pruned.folder}: pruned" in (tmp_path / "out" / "results.md").read_text().replace("\\", "")
    assert run_script("sweep", TINY, *SHORT, "--axis=seed=0:2", f"--workdir={tmp_path / 's'}") == 2
    assert "holds a sweep of other points" in capsys.readouterr().err


def driver(folder, *flags):
    command = [sys.executable, "-m", "experiments.sweep", TINY, *SHORT, f"--workdir={folder}", *flags]
    own = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    kinds = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=own, cwd=ROOT, start_new_session=True, **kinds)


def test_a_killed_search_goes_on_and_has_each_trial_once(tmp_path):
    flags = [tmp_path / "s", "--search=random", "--trials=3", "--config.train.epochs=12"]
    process, end = driver(*flags), time.monotonic() + 90
    while not list((tmp_path / "s").glob("*/result.json")) or len(list((tmp_path / "s").glob("*/config.json"))) < 2:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    process = driver(*flags)
    shown, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "3 points: " in shown and len(list((tmp_path / "s").glob("*/config.json"))) == 3
    assert len(list((tmp_path / "s").glob("*/result.json"))) == 3
    study = search.Search(plan_of(tmp_path / "s", asked_of()), asked_of())
    study.kept = search.open_storage(tmp_path / "s", None)
    (found,) = study.kept.get_all_studies()
    trials = study.kept.get_all_trials(found._study_id)
    done = [tuple(trial.params.values()) for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(done) == len(set(done)) == 3


@pytest.fixture
def postgres():
    """The URL of a PostgreSQL server of our own."""
    place = next(iter(sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))), None)
    pytest.importorskip("psycopg", reason="no psycopg to reach PostgreSQL with: pip install psycopg[binary]")
    if place is None:
        pytest.skip("no PostgreSQL server: apt-get install postgresql")
    folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    user = {}
    if os.getuid() == 0:  # it does not run as root
        shutil.chown(folder, "postgres")
        user = {"user": "postgres"}
    call = lambda *words: subprocess.run(words, check=True, capture_output=True, cwd=folder, **user)
    call(place / "initdb", "-D", folder / "data", "-U", "us", "-A", "trust")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    call(place / "pg_ctl", "-D", folder / "data", "-l", folder / "log", "-w", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://us:secret@/postgres?host={folder}"
    finally:
        call(place / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_two_machines_share_a_search_by_postgresql(tmp_path, postgres):
    flags = ["--search=tpe", "--trials=6", f"--storage={postgres}", "--prune=median"]
    processes = [driver(tmp_path / name, *flags) for name in "ab"]
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    names = [{path.parent.name for path in (tmp_path / name).glob("*/result.json")} for name in "ab"]
    assert names[0] and names[1] and not names[0] & names[1] and 6 <= len(names[0] | names[1]) <= 7
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        assert b"secret" not in path.read_bytes(), path
    assert "secret" not in str(said)
    process = driver(tmp_path / "c", *flags)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and f"{len(names[0] | names[1])} points" in shown
