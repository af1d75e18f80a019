"""What a run tells while it goes: at once, whole, and never at the run's cost."""

import io

import numpy as np
from conftest import read_events

from research import runs
from research import stderr as module
from research.log import Log
from research.stderr import counted


def test_a_row_is_in_both_files_at_once(tmp_path):
    log = Log(tmp_path, 0, 10, 4, stream=io.StringIO())
    log.row(5, "train", {"loss": 0.5})
    log.row(5, "validation", {"accuracy": 0.25})
    assert read_events(tmp_path / "tensorboard") == {(5, "train/loss"): 0.5, (5, "validation/accuracy"): 0.25}
    assert [row["step"] for row in runs.read_rows(tmp_path)] == [5, 5]  # nothing was closed yet
    log.close()


def test_after_a_resume_the_curve_is_that_of_one_run(tmp_path):
    logs = []  # not closed before they are read: the first process was killed
    for start, last in ((0, 8), (6, 10)):
        logs.append(Log(tmp_path, start, 10, 4, stream=io.StringIO()))
        for step in range(start + 1, last + 1):
            logs[-1].row(step, "train", {"loss": start + step})
    found = read_events(tmp_path / "tensorboard")
    assert found == {(step, "train/loss"): step + (6 if step > 6 else 0) for step in range(1, 11)}
    [log.close() for log in logs]


def test_a_run_that_goes_back_has_the_curve_of_the_rows_it_keeps(tmp_path):
    log, rows = Log(tmp_path, 0, 10, 4, stream=io.StringIO()), {}
    for step in range(1, 9):
        log.row(step, "train", {"loss": 0.5})
        rows[step] = log.rows()
    log.go_back(4, rows[4])
    log.row(5, "train", {"loss": 0.25})
    assert read_events(tmp_path / "tensorboard") == {
        (step, "train/loss"): 0.25 if step == 5 else 0.5 for step in range(1, 6)
    }
    assert [row["step"] for row in runs.read_rows(tmp_path)] == [1, 2, 3, 4, 5] and log.rows().startswith(rows[4])
    log.close()


def test_where_tensorboard_cannot_be_written_the_run_goes_on(tmp_path, full_disk):
    said = io.StringIO()
    log = Log(tmp_path, 0, 10, 4, stream=said)
    full_disk(65536)
    log.image("noise", np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))
    for step in range(1, 100):
        log.row(step, "train", {"loss": 0.5})
    log.close()
    assert len(runs.read_rows(tmp_path)) == 99
    said = said.getvalue()
    assert said.count("tensorboard: cannot be written: File too large; the run goes on without TensorBoard") == 1


def test_a_file_where_tensorboard_should_be_stops_nothing(tmp_path):
    (tmp_path / "tensorboard").touch()
    said = io.StringIO()
    log = Log(tmp_path, 0, 10, 4, stream=said)
    log.row(1, "train", {"loss": 0.5})
    log.close()
    assert len(runs.read_rows(tmp_path)) == 1 and "without TensorBoard" in said.getvalue()


def test_what_is_counted_says_how_far_it_is_and_the_time_left(monkeypatch):
    clock, said = iter(range(0, 100, 3)), io.StringIO()  # three seconds from look to look
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    assert list(counted([10, 0, 30, 60], 100, "bytes", lambda item: item, said)) == [10, 0, 30, 60]
    assert said.getvalue().splitlines() == [
        "10/100 bytes  0:27 left", "10/100 bytes  0:54 left", "40/100 bytes  0:13 left", "100/100 bytes  0:00 left"
    ]  # fmt: skip
