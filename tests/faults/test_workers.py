"""Data workers that are killed or stopped, and a trainer that is killed: nobody waits for ever, and nothing is lost."""

import os
import pathlib
import signal
import time

import pytest
from conftest import make_setup
from processes import train, wait_until

from research import runs
from research.data import batches
from research.errors import UserError

FLAGS = ["--config.train.epochs=60", "--config.eval.every_steps=50", "--config.checkpoint.every_steps=50"]
STREAMED = [*FLAGS, "--config.data.memory_limit_bytes=0", "--config.data.workers=2", "--config.train.hang_seconds=8"]


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


def test_a_killed_worker_is_replaced_a_stopped_one_is_named_and_none_outlives_the_trainer(tmp_path):
    run = tmp_path / "run"
    process = train(*STREAMED, cwd=tmp_path)
    wait_until(lambda: (run / "metrics.jsonl").exists() and len(workers(process)) == 2, process)
    os.kill(workers(process)[0], signal.SIGKILL)
    said = "a data worker was ended by SIGKILL; the workers are started again"
    wait_until(lambda: said in (run / "log.txt").read_text(), process)
    wait_until(lambda: len(workers(process)) == 2, process)
    left = workers(process)
    process.kill()
    process.communicate()
    until = time.monotonic() + 5
    while any(map(is_alive, left)):
        assert time.monotonic() < until, "they outlive the trainer"
        time.sleep(0.01)

    process = train(*STREAMED, cwd=tmp_path)
    wait_until(lambda: len(workers(process)) == 2, process)
    left = workers(process)
    os.kill(left[0], signal.SIGSTOP)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 8
    line = err.splitlines()[-1]
    assert line.startswith("error: run: nothing was done for 8 s, config.train.hang_seconds;") and str(left[0]) in line
    assert line in (run / "log.txt").read_text() and runs.read_result(run)["status"] == "failed"
    assert " in _to" in (run / "hang.txt").read_text()
    assert not any(map(is_alive, left))

    process = train(*STREAMED, cwd=tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 0
    process = train(*FLAGS, "--workdir=whole", cwd=tmp_path)
    process.communicate(timeout=60)
    assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


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
    with pytest.raises(UserError, match="step 9: a data worker was ended by SIGKILL, the 4th one; .*workers") as error:
        next_batch(1)
    assert error.value.code == 3 and capsys.readouterr().err.count("the workers are started again") == 3
