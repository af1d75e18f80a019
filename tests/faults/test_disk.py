"""A disk that is full, files that may not grow, and a folder that cannot be written: one line, and nothing is lost."""

import os
import shlex
import shutil
import subprocess

import pytest
from processes import COMMAND, ENVIRONMENT

from research import runs

FLAGS = ["--config.train.epochs=16", "--config.log.every_steps=1"]  # 160 rows of 240 bytes
FLAGS += ["--config.eval.every_steps=40", "--config.checkpoint.every_steps=40"]


def run(prefix, cwd, *flags):
    command = ["bash", "-c", f"{prefix} {shlex.join([*COMMAND, *FLAGS, *flags])}"]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)


def ends_well(done, line):
    assert done.returncode == 5 and len(done.stderr) < 5000 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and line in done.stderr


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Those of a run that nothing stood in the way of."""
    folder = tmp_path_factory.mktemp("whole")
    assert run("", folder).returncode == 0
    return (folder / "run/metrics.jsonl").read_bytes()


def test_a_full_disk_and_a_folder_that_cannot_be_written_end_in_a_line_and_lose_nothing(tmp_path, rows):
    ends_well(run("ulimit -f 32;", tmp_path), "run: cannot be written: File too large")
    folder = tmp_path / "run/checkpoints"
    assert {path.name for path in folder.iterdir()} == {"80", "120"}
    if os.getuid() or shutil.which("setpriv"):  # which takes root's rights away
        folder.chmod(0o555)
        rights = "" if os.getuid() else "setpriv --bounding-set=-dac_override"
        ends_well(run(rights, tmp_path), "run/checkpoints: cannot be written: Permission denied")
        folder.chmod(0o755)
    assert run("", tmp_path).returncode == 0
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == rows


def test_a_state_that_cannot_be_written_is_one_line_whatever_the_libraries_say_of_each_array(tmp_path):
    ends_well(run("ulimit -f 40;", tmp_path, "--config.model.layers=conv16,pool2,dense64"), "File too large")
    assert runs.read_result(tmp_path / "run")["status"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [1, 2, 4, 8, 16])
def test_a_run_whose_files_may_not_grow_ends_in_a_line_whatever_it_writes(tmp_path, rows, kilobytes):
    ends_well(run(f"ulimit -f {kilobytes};", tmp_path), "cannot be written: File too large")
    assert run("", tmp_path).returncode == 0
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == rows
