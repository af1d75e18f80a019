"""Data workers that are killed or stopped, and a trainer that is killed: nobody waits for ever, and nothing is lost."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from conftest import make_setup
from processes import ENVIRONMENT, train, wait_until

from research import runs
from research.data import batches
from research.errors import UserError

FLAGS = ["--config.train.epochs=30", "--config.eval.every_steps=50", "--config.checkpoint.every_steps=50"]
STREAMED = [*FLAGS, "--config.data.memory_limit_bytes=0", "--config.data.workers=2"]


def workers(process):
    """The data workers of a process: their numbers, once they work."""
    tasks = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(child) for path in tasks for child in path.read_text().split()]
    maps = lambda child: pathlib.Path(f"/proc/{child}/maps").read_text()
    return [child for child in children if is_alive(child) and "jaxlib" in maps(child)]


def is_alive(number):
    try:
        return pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_worker_is_replaced_and_none_outlives_the_trainer(tmp_path):
    run = tmp_path / "run"
    process = train(*STREAMED, cwd=tmp_path)
    wait_until(lambda: (run / "metrics.jsonl").exists() and len(workers(process)) == 2, process)
    os.kill(workers(process)[0], signal.SIGKILL)
    said = "a data worker was killed by SIGKILL; restarting the workers"
    wait_until(lambda: said in (run / "log.txt").read_text(), process)
    wait_until(lambda: len(workers(process)) == 2, process)
    left = workers(process)
    process.kill()
    process.communicate()
    until = time.monotonic() + 5
    while any(map(is_alive, left)):
        assert time.monotonic() < until, "they outlive the trainer"
        time.sleep(0.01)
    for flags in (STREAMED, [*FLAGS, "--workdir=whole"]):
        process = train(*flags, cwd=tmp_path)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_run_whose_worker_is_stopped_ends_and_names_it(tmp_path):
    run = tmp_path / "run"
    process = train(*STREAMED, "--config.train.hang_seconds=20", cwd=tmp_path)
    wait_until(lambda: (run / "metrics.jsonl").exists() and len(workers(process)) == 2, process)
    left = workers(process)
    os.kill(left[0], signal.SIGSTOP)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 8
    line = err.splitlines()[-1]
    assert line.startswith(
        f"error: run: no progress for 20 s (config.train.hang_seconds); data worker {left[0]} is stopped"
    )
    assert line in (run / "log.txt").read_text() and runs.read_result(run)["status"] == "failed"
    assert " in _to" in (run / "hang.txt").read_text() and not any(map(is_alive, left))


WATCHED = """
import pathlib, sys, time
from research.watchdog import alive, watched

def hang():
    time.sleep(60)

with watched(pathlib.Path("."), 0.5, lambda reason: pathlib.Path("reason").write_text(reason)):
    for _ in range(20):
        time.sleep(0.05)
        alive()
    if sys.argv[1] == "hang":
        hang()
"""


@pytest.mark.parametrize("how,code", [("go on", 0), ("hang", 8)])
def test_a_process_without_progress_ends_with_its_stacks(tmp_path, how, code):
    ended = subprocess.run([sys.executable, "-c", WATCHED, how], cwd=tmp_path, env=ENVIRONMENT, timeout=30)
    assert ended.returncode == code
    if code:
        assert "no progress for 0.5 s" in (tmp_path / "reason").read_text()
        assert "in hang" in (tmp_path / "hang.txt").read_text()
    else:
        assert list(tmp_path.iterdir()) == []


def test_workers_that_keep_dying_are_an_error_that_says_what_may_help(monkeypatch, capsys):
    """What Grain raises stands for the deaths."""
    setup, started = make_setup(), []

    def dying(split, seed, size, first, last, *processes):
        started.append(first)
        yield first
        raise RuntimeError("Worker process was terminated unexpectedly with exit code -9. Search the logs above")

    monkeypatch.setattr(batches, "train_batches", dying)
    next_batch = batches.make_next_batch(setup.splits["train"], 1, False, 0, 16, 5, 100, 0, 1)
    assert [next_batch(1)[1] for _ in range(4)] == started == [5, 6, 7, 8]
    with pytest.raises(
        UserError, match="step 9: a data worker was killed by SIGKILL after 3 restarts; .*workers"
    ) as error:
        next_batch(1)
    assert error.value.code == 3 and capsys.readouterr().err.count("restarting the workers") == 3
