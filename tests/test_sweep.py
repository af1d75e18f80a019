"""Sweeps: the algebra of their points, each trial once whatever befalls its process, and what a user may get wrong."""

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import faulty
import numpy as np
import pytest
from conftest import ROOT, make_config, run_script
from hypothesis import given
from hypothesis import strategies as st

from research import config as configs
from research import runs
from research.errors import UserError
from research.models import MODELS
from research.studies import schedule, sweep, watch, workers

TINY = f"--config={ROOT}/configs/digits_cnn.py:tiny"

sweeps = st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(), max_size=2), max_size=4)
others = st.lists(st.dictionaries(st.sampled_from("xyz"), st.integers(), max_size=2), max_size=4)


@given(sweeps, others)
def test_product_has_every_pair_of_points_once_in_order(a, b):
    assert sweep.product(a, b) == [p | q for p in a for q in b]
    assert sweep.product(a) == a and sweep.product() == [{}]
    assert len(sweep.product(a, b)) == len(a) * len(b)


@given(sweeps, others)
def test_together_pairs_points_and_chain_appends_them(a, b):
    n = min(len(a), len(b))
    assert sweep.together(a[:n], b[:n]) == [p | q for p, q in zip(a, b)]
    assert sweep.chain(a, b) == a + b and sweep.chain(a, sweep.chain(b, a)) == sweep.chain(sweep.chain(a, b), a)
    if len(a) != len(b):
        with pytest.raises(UserError, match="together: sweeps of different lengths"):
            sweep.together(a, b)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 3))
def test_samples_are_in_their_bounds_and_more_begin_with_the_same(few, more, seed):
    space = {
        "rate": sweep.log_uniform(1e-4, 1e-1),
        "dropout": sweep.uniform(0.1, 0.5),
        "layers": sweep.uniform(1, 3),
        "cell": sweep.choice("gru", "lstm"),
    }
    points = sweep.sample(few, space, seed)
    assert sweep.sample(few + more, space, seed)[:few] == points
    assert [{"cell": point["cell"]} for point in points] == sweep.sample(few, {"cell": space["cell"]}, seed)
    for point in points:
        assert 1e-4 <= point["rate"] <= 1e-1 and 0.1 <= point["dropout"] <= 0.5
        assert point["layers"] in (1, 2, 3) and point["cell"] in ("gru", "lstm")


def test_a_log_uniform_sample_is_uniform_in_the_logarithm():
    from scipy import stats

    points = sweep.sample(500, {"rate": sweep.log_uniform(1e-4, 1e-1)})
    import math

    logs = [math.log10(point["rate"]) for point in points]
    assert stats.kstest(logs, stats.uniform(-4, 3).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    "text,values",
    [
        ("seed=0:3", [0, 1, 2]),
        ("seed=-1:1,7", [-1, 0, "7"]),
        ("config.optimizer.learning_rate=1e-4, 1e-3", ["1e-4", "1e-3"]),
        ("model.layers=(conv8,pool2),(conv8)", ["conv8,pool2", "conv8"]),
        ("data.augment=none", ["none"]),
        ("data.splits.train=train[:5],train[:7]", ["train[:5]", "train[:7]"]),
    ],
)
def test_an_axis_of_the_command_line_is_read_as_its_field_would_be(text, values):
    path = text.removeprefix("config.").partition("=")[0]
    assert sweep.parse_axis(text) == [{path: value} for value in values]


def test_trials_have_names_of_their_own_and_the_same_config_is_one_trial():
    config = make_config()
    points = sweep.product(
        sweep.axis("optimizer.learning_rate", ["0.1", 0.2]), sweep.axis("model.layers", ["conv4", ("conv4", "pool2")])
    )
    trials, same = sweep.trials_of(config, [*points, {"optimizer.learning_rate": 0.2, "model.layers": "conv4"}, {}])
    assert same == 1 and len(trials) == 5
    names = [trial.name for trial in trials]
    assert names[1].startswith("learning_rate=0.1,layers=conv4,pool2_") and names[4].startswith("base_")
    assert len(set(names)) == 5 and all("/" not in name and len(name) < 120 for name in names)
    again, _ = sweep.trials_of(config, [trial.overrides for trial in trials])
    assert [trial.name for trial in again] == names
    named = {"model.name": "mlp", "model.widths": (3,)}
    assert sweep.trials_of(config, [named])[0][0].name.startswith("model=mlp,widths=3_")


WRONG = [  # flags, part of the line
    ([], "--sweep or --axis: needed"),
    (["--sweep=modle"], "--sweep: 'modle' is unknown; known are batch, model, random, rate; did you mean model?"),
    (["--axis=seed"], "--axis=seed: not of the form"),
    (["--axis=seed="], "--axis=seed=: not of the form"),
    (["--axis=seed=3:3"], "--axis=seed=3:3: has no value"),
    (["--axis=sede=0:3"], "config.sede: no such field; did you mean config.seed?"),
    (["--axis=optimizer=1"], "config.optimizer: a section"),
    (["--axis=seed=0,1.5"], "config.seed: '1.5' is not int"),
    (["--axis=optimizer.learning_rate=fast"], "config.optimizer.learning_rate: 'fast' is not float"),
    (["--axis=seed=0:2", "--axis=seed=3:5"], "config.seed: two axes of it"),
    (["--sweep=model", "--axis=model.name=cnn"], "config.model.name: two axes of it"),
    (["--axis=seed=0:2", "--config.seed=1"], "config.seed: given beside an axis of it"),
    (["--axis=seed=0:10001"], "--axis: 10,001 points are more than 10,000; --yes runs them"),
    (["--axis=seed=0:200", "--axis=data.batch_size=1:200"], "39,800 points"),
    (["--axis=seed=0:99999999999"], "99,999,999,999 values; give fewer"),
    (["--axis=seed=0:2", "--jobs=0"], "--jobs: 0 processes"),
    (["--axis=seed=0:2", "--vectorize=0"], "--vectorize: '0' is neither auto nor a number of trials"),
    (["--axis=seed=0:2", "--vectorize=all"], "--vectorize: 'all' is neither auto nor a number of trials"),
    (["--axis=seed=0:2", "--trial_seconds=0"], "--trial_seconds: 0 is no time"),
    (["--axis=seed=0:2", "--trial_seconds=nan"], "--trial_seconds: nan is no time"),
]


@pytest.mark.parametrize("flags,part", WRONG, ids=lambda value: str(value)[:50])
def test_a_mistake_in_a_sweep_is_one_line_and_nothing_is_written(flags, part, tmp_path, capsys):
    assert run_script("sweep", TINY, f"--workdir={tmp_path}/sweep", *flags) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and part in line and captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_points_are_checked_as_training_would_before_any_runs(tmp_path, capsys):
    flags = ["--axis=data.batch_size=16,4000", f"--workdir={tmp_path}/sweep"]
    assert run_script("sweep", TINY, *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "trial batch_size=4000_" in line and "which has 160 examples" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "body,part",
    [
        ("return []", "has no point"),
        ("return {'seed': 1}", "gives no list of {path: value}"),
        ("return [1]", "gives no list of {path: value}"),
        ("return together([{'seed': 1}], [])", "together: sweeps of different lengths: 1 of seed, 0 of nothing"),
        ("return product([{'seed': 1}], [{'seed': 2}])", "config.seed: two axes of it"),
        ("return sample(3, {'seed': uniform(3, 1)})", "uniform: 3 to 1"),
        ("return sample(3, {'optimizer.learning_rate': log_uniform(0, 1)})", "log_uniform: 0 to 1"),
        ("return sample(3, {'seed': choice()})", "choice: of nothing"),
        ("return [{}['seed']]", "own.py, line 5: KeyError: 'seed'"),
    ],
)
def test_a_mistake_in_a_configs_own_sweep_names_it(body, part, tmp_path, capsys):
    lines = [
        "from research.config import base, override; from research.studies.sweep import *",
        "def get_config(size):",
    ]
    lines += ["    return override(base(), {'train.steps': 1})", "def sweep_own():", f"    {body}"]
    (tmp_path / "own.py").write_text("\n".join(lines))
    assert run_script("sweep", f"--config={tmp_path}/own.py", "--sweep=own", f"--workdir={tmp_path}/sweep") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --sweep=own: ") and part in line
    assert not (tmp_path / "sweep").exists()


def plan_of(folder, config, points):
    return schedule.Plan(folder, "own.py", "base", config, sweep.trials_of(config, points)[0], {})


@pytest.mark.parametrize("kind", ["run", "files", "other config", "other points"])
def test_a_folder_of_something_else_is_refused(kind, tmp_path):
    config = make_config()
    plan = plan_of(tmp_path, config, sweep.axis("seed", range(3)))
    if kind == "run":
        runs.write_config(tmp_path, config, "own.py", "base")
    elif kind == "files":
        (tmp_path / "notes.txt").touch()
    else:
        schedule._begin(plan)
        if kind == "other config":
            plan = plan._replace(config=configs.override(config, {"train.steps": 5}))
        else:
            plan = plan_of(tmp_path, config, sweep.axis("seed", range(1, 4)))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as found:
        schedule.check_folder(plan)
    assert found.value.code == 2 and str(tmp_path) in str(found.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_left_before_its_sweep_was_whole_is_taken(tmp_path):
    for name in ("lock", "sweep.jsonx1y2"):
        (tmp_path / name).touch()
    schedule.check_folder(plan_of(tmp_path, make_config(), sweep.axis("seed", range(3))))


def test_more_points_of_the_same_sweep_are_taken_up(tmp_path):
    config = make_config()
    schedule._begin(plan_of(tmp_path, config, sweep.axis("seed", range(3))))
    plan = plan_of(tmp_path, config, sweep.axis("seed", range(5)))
    schedule.check_folder(plan)
    schedule._begin(plan)
    kept = schedule.read_plan(tmp_path)
    assert [trial.overrides for trial in kept.trials] == [{"seed": i} for i in range(5)]
    assert kept.config == config and [t.config for t in kept.trials] == [t.config for t in plan.trials]


def test_the_machine_is_shared_out_among_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    one, two, many = workers.shares(1), workers.shares(2), workers.shares(7)
    assert one == [workers.Share((0, 1, 2, 3, 4), ("3", "GPU-7"))]
    assert [share.cores for share in two] == [(0, 1), (2, 3, 4)] and [share.gpus for share in two] == [
        ("3",),
        ("GPU-7",),
    ]
    assert all(len(share.cores) == 1 and len(share.gpus) == 1 for share in many)
    assert {share.gpus[0] for share in many} == {"3", "GPU-7"} and many[0].memory == 0.9 / 4
    for platforms, gpus in (("cpu", ()), ("cuda,cpu", ("3", "GPU-7")), ("tpu", ())):
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
        assert workers.shares(1)[0].gpus == gpus


def run_plan(plan, most=1, **own):
    """Checks and runs a plan with workers that know the faulty model: its code, and what was said."""
    said = io.StringIO()
    with workers.crew(faulty.settings) as hire:
        plan = schedule.check(plan, hire(workers.shares(1)[0]))
        with watch.View(plan, said) as view:
            jobs = schedule.jobs_of(plan, most, own.get("processes", 1))
            code = schedule.run(plan, jobs, view, hire, **own)
    return plan, code, said.getvalue()


def test_a_trial_that_crashes_hangs_diverges_or_runs_out_of_memory_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "faulty", faulty.Faulty)
    monkeypatch.setenv("FAULTS", str(tmp_path))
    monkeypatch.setattr(schedule, "PATIENCE", 0.5)
    config = make_config(model__name="faulty", train__steps=4, eval__every_steps=2)
    kinds = ("raise", "kill", "hang", "once", "none")
    points = [*sweep.axis("model.fault", kinds), {"optimizer.learning_rate": 1e38}]
    plan, code, said = run_plan(plan_of(tmp_path / "sweep", config, points), processes=2, trial_seconds=8)
    seen = [watch.look(trial, plan.folder / trial.name) for trial in plan.trials]
    assert [found.status for found in seen] == ["failed", "failed", "failed", "finished", "finished", "diverged"]
    logs = [plan.folder / "logs" / f"{trial.name}.txt" for trial in plan.trials]
    reasons = [found.result.get("reason") for found in seen]
    assert "no memory left" in reasons[0] and "MemoryError" in logs[0].read_text()
    assert reasons[1] == f"the process was ended by SIGKILL, as where memory runs out; see {logs[1]}"
    assert reasons[2] == f"took longer than --trial_seconds=8; where it stood is in {logs[2]}"
    assert "in strike" in logs[2].read_text()  # the stack of the thread that hangs
    assert "is inf" in reasons[5] or "is nan" in reasons[5]
    assert code in (1, schedule.HUNG)
    for trial, reason in zip(plan.trials, reasons):
        assert reason is None or f"{trial.name}: " in said
    (tmp_path / "mended").touch()
    kept = (plan.folder / plan.trials[4].name / "result.json").read_text()
    plan, code, _ = run_plan(plan, processes=2)
    statuses = [watch.look(trial, plan.folder / trial.name).status for trial in plan.trials]
    assert code == 0 and statuses == [*["finished"] * 5, "diverged"]
    assert (plan.folder / plan.trials[4].name / "result.json").read_text() == kept
    table = watch.results(plan)
    assert len(table) == 8 and table[6].split()[:3] == ["6", "1e+38", "diverged"]
    for name in ("raise", "kill", "hang", "once"):  # one and the same network: it trained as the one without faults
        (trial,) = [trial for trial in plan.trials if trial.overrides == {"model.fault": name}]
        rows = (plan.folder / trial.name / "metrics.jsonl").read_bytes()
        assert rows == (plan.folder / plan.trials[4].name / "metrics.jsonl").read_bytes()


def test_a_population_whose_process_is_killed_is_taken_up(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "faulty", faulty.Faulty)
    monkeypatch.setenv("FAULTS", str(tmp_path))
    config = make_config(model__name="faulty", train__steps=4, eval__every_steps=2)
    points = sweep.product(sweep.axis("model.fault", ("none", "once")), sweep.axis("seed", range(3)))
    plan, code, said = run_plan(plan_of(tmp_path / "sweep", config, points), most=3)
    assert code == 0 and (tmp_path / "killed").exists() and said.count("validation accuracy") == 6
    places = [plan.folder / trial.name for trial in plan.trials]
    for a, b in zip(places[:3], places[3:]):
        rows, others = ([(row["step"], row["loss"]) for row in runs.read_rows(place)] for place in (a, b))
        assert len(rows) == len(others) == 5 and np.allclose(rows, others, rtol=1e-5)  # the forms may be two
        assert len(runs.read_json(b / "manifest.json")) == 2 and runs.read_json(a / "manifest.json")[0]["together"] == 3


def test_a_trial_that_a_dying_process_still_saves_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule.workers, "write_to", lambda path: None)
    config = make_config(model__name="mlp", model__widths=(4,), train__steps=2, eval__every_steps=2)
    held, enough = threading.Event(), threading.Event()

    def hold():
        with runs.lock(tmp_path / "trial"):
            held.set()
            enough.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    monkeypatch.setattr(schedule.time, "sleep", lambda seconds: enough.set() or holder.join() if seconds else None)
    given = [(tmp_path / "trial", configs.to_json(config), None)]
    assert schedule.train_trials(given, "", "", None) == [(0, "")]
    assert runs.read_json(tmp_path / "trial" / "result.json")["status"] == "finished" and enough.is_set()


def test_a_sweeps_folder_is_looked_at_again_under_its_lock(tmp_path, monkeypatch):
    plan, other = (plan_of(tmp_path, make_config(), sweep.axis("seed", range(n, 3))) for n in (0, 1))
    lock = runs.lock

    @contextlib.contextmanager
    def late(folder):
        with lock(folder):
            schedule._begin(plan)  # another process has
            yield folder

    monkeypatch.setattr(schedule.runs, "lock", late)
    with pytest.raises(UserError, match="holds another sweep: 1 of its trials"):
        schedule.run(other, [], None, None)


def test_a_trial_that_another_stops_is_tried_again_and_one_that_fails_early_is_recorded(tmp_path):
    plan = plan_of(tmp_path, make_config(), sweep.axis("seed", range(4)))
    (tmp_path / plan.trials[0].name).mkdir()
    runs.write_json(tmp_path / plan.trials[0].name / "result.json", {"status": "finished"})
    answers = [(0, ""), (schedule.STOPPED, "stopped"), (3, "no such shard"), (schedule.STOPPED, "stopped")]

    class Done:
        answer = lambda self: answers

    slot, waiting = schedule.Slot(None, Done(), schedule.Job(tuple(plan.trials))), []
    assert schedule._take(plan, slot, waiting) == [3] and slot.job is None
    assert waiting == [schedule.Job((plan.trials[1], plan.trials[3]), tries=1)]
    result = runs.read_json(tmp_path / plan.trials[2].name / "result.json")
    assert result["status"] == "failed" and result["reason"].startswith("no such shard; see ")
    slot.job, answers[:] = waiting.pop(), [(schedule.STOPPED, "stopped"), (0, "")]
    assert schedule._take(plan, slot, waiting) == [schedule.STOPPED] and not waiting


def test_a_trial_that_diverged_has_not_failed():
    assert schedule._ending(UserError(6, "step 3: loss is nan")) == schedule._ending({}) == (0, "")
    assert schedule._ending(UserError(3, "no such shard")) == (3, "no such shard")
    with pytest.raises(MemoryError):
        schedule._ending(MemoryError())


def test_what_is_over_is_not_marked_as_failed(tmp_path):
    plan = plan_of(tmp_path, make_config(), sweep.axis("seed", range(3)))
    for trial, status in zip(plan.trials, ("finished", "diverged", "stopped")):
        (tmp_path / trial.name).mkdir()
        runs.write_json(tmp_path / trial.name / "result.json", {"status": status})
    assert [schedule._failed(plan, trial, "gone", 1) for trial in plan.trials] == [0, 0, 1]
    results = [runs.read_json(tmp_path / trial.name / "result.json") for trial in plan.trials]
    assert [result["status"] for result in results] == ["finished", "diverged", "failed"]
    with runs.lock(tmp_path / plan.trials[2].name):  # another process writes it: that stops no other trial
        assert schedule._failed(plan, plan.trials[2], "held", 7) == 7
    assert runs.read_json(tmp_path / plan.trials[2].name / "result.json")["reason"] == "gone"
    assert results[2]["reason"] == "gone" and runs.read_config(tmp_path / plan.trials[2].name).seed == 2


def driver(folder, *flags):
    command = [sys.executable, "-m", "experiments.sweep", TINY, "--config.train.epochs=32", "--axis=seed=0:3"]
    command += ["--config.checkpoint.every_steps=10", "--config.eval.every_epochs=4"]
    own = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    return subprocess.Popen(
        [*command, f"--workdir={folder}", *flags],
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group, as a terminal has it
    )


def workers_of(process):
    """The processes that a driver has started and that train."""
    found = []
    for place in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and "spawn_main" in (place / "cmdline").read_text():
                found.append(int(place.name))
    return found


def until(what, process, seconds=90):
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


def saved(folder):
    """The steps of all trials that are in checkpoints."""
    steps = [[int(path.name) for path in place.glob("[0-9]*[0-9]")] for place in folder.glob("*/checkpoints")]
    return sum(max(found, default=0) for found in steps)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="finds the workers in /proc")
def test_killed_workers_and_drivers_leave_each_trial_once_and_the_same_table(tmp_path):
    whole = driver(tmp_path / "whole")
    wanted, _ = whole.communicate(timeout=120)
    assert whole.returncode == 0
    place = tmp_path / "sweep"
    for kind in ("worker, then driver", "both", "interrupted"):
        process, before = driver(place, "--jobs=2"), saved(place)
        until(lambda: saved(place) > before, process)
        found = workers_of(process)
        assert found
        if kind == "worker, then driver":
            os.kill(found[0], signal.SIGKILL)
            until(lambda: saved(place) > before + 40, process)
        if kind != "interrupted":
            process.kill()
        if kind == "both":
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if kind == "interrupted":
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=60)
            assert process.returncode == 130
            assert said.splitlines()[-1].startswith(f"error: {place}: stopped by SIGINT; the state was saved")
            statuses = [runs.read_json(path)["status"] for path in place.glob("*/result.json")]
            assert "stopped" in statuses and set(statuses) <= {"stopped", "finished"}
            assert not any(os.path.exists(f"/proc/{pid}") for pid in found)
        process.communicate()
    process = driver(place)
    table, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert table.replace(str(place), "") == wanted.replace(str(tmp_path / "whole"), "")
    names = sorted(path.parent.name for path in place.glob("*/config.json"))
    assert names == sorted(path.parent.name for path in (tmp_path / "whole").glob("*/config.json")) and len(names) == 3
    for name in names:
        rows = (place / name / "metrics.jsonl").read_bytes()
        assert rows == (tmp_path / "whole" / name / "metrics.jsonl").read_bytes()
    for name in names[:2]:
        starts = runs.read_json(place / name / "manifest.json")
        own = {f"{len(share.cores)} core" for share in workers.shares(2)}  # of each of two processes
        assert len(starts) > 1 and any(starts[0]["machine"].startswith(words) for words in own)
    assert json.loads((place / "sweep.json").read_text())["asked"] == {"sweep": [], "axis": ["seed=0:3"]}


def test_a_sweep_folder_goes_on_by_itself_and_a_dry_run_writes_nothing(tmp_path, capsys):
    flags = [
        TINY,
        "--axis=seed=0:2",
        "--axis=optimizer.name=sgd",
        "--config.train.epochs=1",
        f"--workdir={tmp_path}/sweep",
    ]
    assert run_script("sweep", *flags, "--dry_run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["trial  seed  optimizer.name", "1      0     sgd", "2      1     sgd", "2 trials, 20 steps"]
    assert list(tmp_path.iterdir()) == []
    assert run_script("sweep", *flags) == 0
    table = capsys.readouterr().out
    assert run_script("sweep", f"--workdir={tmp_path}/sweep") == 0
    assert capsys.readouterr().out == table and "best validation loss" in table
    (trial, *_) = sorted((tmp_path / "sweep").glob("seed=0*"))
    alone = runs.load(trial)
    assert alone.config.seed == 0 and f"{alone.result['metrics']['test']['loss']:.4f}" in table
    assert run_script("sweep", f"--workdir={tmp_path}/none") == 2
    assert "holds no sweep" in capsys.readouterr().err


def test_a_live_table_shows_what_runs_and_the_best(tmp_path):
    class Terminal(io.StringIO):
        isatty = lambda self: True

    config = make_config(eval__metric="loss", eval__direction="min")
    plan = plan_of(tmp_path, config, sweep.axis("seed", range(30)))
    plan = plan._replace(trials=[trial._replace(steps=12) for trial in plan.trials])
    first, second, third = (plan.folder / trial.name for trial in plan.trials[:3])
    screen = Terminal()
    finish = lambda folder, loss: runs.write_json(
        folder / "result.json", {"status": "finished", "metrics": {"validation": {"loss": loss}}}
    )
    with watch.View(plan, screen) as view:
        view.show([plan.trials[0].name])
        for folder, loss in ((first, 0.5), (second, 0.75), (third, 9.0)):
            folder.mkdir()
            runs.write_config(folder, config, "", "")
            (folder / "metrics.jsonl").write_text(json.dumps({"step": 6, "split": "validation", "loss": loss}))
        finish(first, 0.5)
        view.show([plan.trials[1].name])
        text = screen.getvalue().rpartition("of 30 trials")[2]
        assert "best 0.5000" in text and "left" in text and "28 more" in text
        assert "50%" in text and "0.7500" in text and "running" in text and "finished" in text
        finish(second, 0.75)
        runs.write_json(third / "result.json", {"status": "failed", "reason": "no such shard"})
        view.show([plan.trials[2].name])
        view.show([])
        text = screen.getvalue()
        assert f"best 0.5000: {first.name}" in text.rpartition("of 30 trials")[2]  # less is better
        assert f"{third.name}: failed: no such shard" in text  # it stays on the screen
