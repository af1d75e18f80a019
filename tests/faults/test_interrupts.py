"""Ctrl-C and kill at real processes, at every stage of their lives: one line, the right code, no traceback."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, read_events
from processes import train, wait_until

from research import runs


def ends_well(process, line):
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "Exception ignored" not in err
    assert err.splitlines()[-1].startswith(f"error: {line}"), err


@pytest.mark.parametrize("library", ["numpy", "jaxlib", "tensorstore"])
def test_an_early_interrupt_is_one_line(tmp_path, library):
    process = train(cwd=tmp_path)
    maps = pathlib.Path(f"/proc/{process.pid}/maps")
    wait_until(lambda: library in maps.read_text(), process)  # it is importing just then
    process.send_signal(signal.SIGINT)
    ends_well(process, "interrupted")
    assert not (tmp_path / "run").exists()


def test_a_second_interrupt_ends_it_without_a_traceback_and_a_killed_run_was_shown(tmp_path):
    flags = ["--config.train.epochs=400", "--config.checkpoint.every_steps=5"]
    process = train(*flags, cwd=tmp_path)
    wait_until(lambda: list((tmp_path / "run" / "checkpoints").glob("[0-9]*")), process)
    while process.poll() is None:  # signals that are not taken yet are one: any number may be
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    ends_well(process, "interrupted;")
    process = train(*flags, cwd=tmp_path)
    rows = tmp_path / "run" / "metrics.jsonl"
    size = rows.stat().st_size
    wait_until(lambda: rows.stat().st_size > size + 1000, process)
    process.kill()
    process.communicate()
    shown = read_events(tmp_path / "run" / "tensorboard")
    rows = runs.read_rows(tmp_path / "run")[:-1]  # it may have been killed between this row's two files
    assert len(rows) > 5 and all((row["step"], f"{row['split']}/loss") in shown for row in rows)


def test_an_interrupt_that_falls_into_a_finalizer_is_not_lost(tmp_path):
    code = """
import gc, signal, sys
from experiments import command

def main(arguments, overrides):
    gc.callbacks.append(lambda phase, info: signal.raise_signal(signal.SIGINT))
    gc.collect()

sys.argv = ["train"]
command.run(lambda: command.parser("a script"), main)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ends_well(subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, **pipes), "interrupted;")
