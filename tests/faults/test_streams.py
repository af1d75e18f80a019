"""stdout and stderr that are closed, full, or without a reader: a run goes on, and log.txt has what stderr had."""

import os
import pty
import shlex
import subprocess

import pytest
from processes import COMMAND, ENVIRONMENT, train, wait_until

from research import runs

SLOW = {">&-": 0, "2>&-": 0, ">/dev/full": 5, "2>/dev/full": 0, "| true": 141, "2>&1 | head -1": 141}
FAST = {">/dev/full 2>/dev/full": 5, "2>&1 >/dev/null | true": 0}
CASES = [*FAST.items(), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW.items())]


def is_whole(folder):
    """The run is finished, and log.txt has its first line and the last of its training."""
    text = (folder / "log.txt").read_text()
    assert text.startswith("parameter  ") and "\nstep 30  test  accuracy" in text
    return runs.read_json(folder / "result.json")["status"] == "finished"


@pytest.mark.parametrize("redirections,code", CASES)
def test_a_run_goes_on_whatever_becomes_of_its_streams(tmp_path, redirections, code):
    script = f"{shlex.join(COMMAND)} {redirections}; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=ENVIRONMENT, timeout=120)
    assert ended.returncode == code and is_whole(tmp_path / "run")


def test_a_run_goes_on_with_all_streams_closed_and_none_of_its_files_takes_their_place(tmp_path):
    script = f"exec {shlex.join(COMMAND)} >&- 2>&- <&-"
    process = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, env=ENVIRONMENT)
    wait_until((tmp_path / "run" / "log.txt").is_file, process)
    assert [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)] == [os.devnull] * 3
    assert process.wait(timeout=120) == 0 and runs.read_result(tmp_path / "run")["status"] == "finished"
    assert (tmp_path / "run" / "log.txt").read_text().splitlines()[-1].split()[2] == "test"


def test_a_run_goes_on_when_its_terminal_is_closed(tmp_path):
    ours, theirs = pty.openpty()
    process = train(cwd=tmp_path, stderr=theirs)
    os.close(theirs)
    wait_until((tmp_path / "run" / "log.txt").is_file, process)
    os.close(ours)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "test accuracy" in out
    text = (tmp_path / "run" / "log.txt").read_text()
    assert "test  accuracy" in text.splitlines()[-1] and "\x1b" not in text  # nothing of the bar
