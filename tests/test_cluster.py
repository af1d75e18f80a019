"""Trials by a cluster, Slurm's place taken by submitit's own processes on this machine."""

import sys

import pytest
from conftest import ROOT, make_config, run_script

from research import runs
from research.studies import cluster, gather, schedule, sweep

pytest.importorskip("submitit", reason="no submitit: pip install submitit")
TINY = ["--config=configs/digits_cnn.py:tiny", "--config.model.name=mlp", "--config.model.widths=8"]


@pytest.fixture
def submitted(monkeypatch):
    """The jobs that a script has submitted."""
    found, submit = [], cluster.submit
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(cluster, "CLUSTER", "local")
    monkeypatch.setattr(cluster, "submit", lambda *own: found.extend(submit(*own)) or found)
    return found


def test_an_array_trains_each_trial_and_the_same_command_shows_them(submitted, tmp_path, capsys):
    flags = [*TINY, "--axis=optimizer.learning_rate=0.01,1e38", f"--workdir={tmp_path / 's'}"]
    assert run_script("sweep", *flags, "--executor=slurm:timeout_min=5") == 0
    assert capsys.readouterr().out.startswith("submitted: ") and len(submitted) == 2
    assert [job.result() for job in submitted] == [None, None]
    assert [record.status for record in gather.read([tmp_path / "s"])] == ["finished", "diverged"]
    before = (tmp_path / "s" / "sweep.json").read_text()
    assert run_script("sweep", *flags) == 0 and "finished" in capsys.readouterr().out
    assert (tmp_path / "s" / "sweep.json").read_text() == before
    assert run_script("sweep", *flags, "--executor=slurm") == 0 and len(submitted) == 2
    assert "submitted" not in capsys.readouterr().out  # nothing is left


def test_a_search_is_an_array_of_drivers(submitted, tmp_path, monkeypatch, capsys):
    url = f"sqlite:///{tmp_path}/study.db"
    flags = [*TINY, "--search=random", "--trials=3", f"--workdir={tmp_path / 's'}", f"--storage={url}"]
    assert run_script("sweep", *flags, "--jobs", "2", "--executor=slurm") == 0
    assert [job.result() for job in submitted] == [0, 0]
    results = [runs.read_json(path)["status"] for path in (tmp_path / "s").glob("*/result.json")]
    assert results.count("finished") == len(results) and 3 <= len(results) <= 4
    assert run_script("sweep", *flags) == 0 and f"{len(results)} points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--executor=pbs"], "--executor: 'pbs' is not of the form slurm"),
        (["--executor=slurm:timeout"], "not of the form"),
        (["--executor=slurm", "--trial_seconds=5"], "--trial_seconds: Slurm stops tasks itself"),
        (["--executor=slurm:nonsense=1"], "--executor=slurm: NameError"),
        (["--executor=slurm", "--search=random"], "needs --storage=URL"),
        (["--executor=slurm", "--search=random", "--storage=postgresql://me:secret@h/db"], "has a password"),
    ],
)
def test_what_no_cluster_can_do_is_one_line(submitted, flags, part, tmp_path, capsys):
    points = [] if "--search=random" in flags else ["--axis=seed=0:2"]
    assert run_script("sweep", *TINY, *points, *flags, f"--workdir={tmp_path / 's'}") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert part in error and "secret" not in error


@pytest.mark.parametrize("fault", ["raises", "returns a code"])
def test_what_fails_in_a_task_is_recorded(fault, tmp_path, monkeypatch):
    def train(members, file, size, log):
        if fault == "raises":
            raise MemoryError("none left")
        return [(3, "none left")]

    monkeypatch.setattr(schedule, "train_trials", train)
    trials, _ = sweep.trials_of(make_config(), sweep.axis("seed", [0]))
    plan = schedule.Plan(tmp_path / "s", "configs/x.py", "tiny", make_config(), trials, {})
    schedule.begin(plan)
    schedule.work(lambda: None, plan, schedule.Job(tuple(trials)))
    (record,) = gather.read([tmp_path / "s"])
    assert record.status == "failed" and "none left" in record.reason


def test_without_submitit_or_slurm_it_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    flags = [*TINY, "--axis=seed=0:2", "--executor=slurm", f"--workdir={tmp_path / 's'}"]
    assert run_script("sweep", *flags) == 2 and "--executor=slurm: RuntimeError" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert run_script("sweep", *flags) == 2 and "pip install submitit" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
