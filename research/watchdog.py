"""Ends a process that stands still, as one that waits for a data worker that is stopped, or for a disk that is gone."""

import contextlib
import faulthandler
import multiprocessing
import os
import pathlib
import sys
import threading
import time

from research.errors import UserError

CODE = 8
REPORTING = 5.0  # seconds for the report, whose disk may be what the process waits for
_signs = [0]  # of life, of this process


def alive():
    """Says that something was done: a dispatch of steps, or a batch of an evaluation."""
    _signs[0] += 1


@contextlib.contextmanager
def watched(folder, seconds, fail):
    """Within, the process ends with code 8 once `alive` has not been called for some time.

    hang.txt in the folder then has the stacks of all threads. Time in which the process is stopped, as by Ctrl-Z, does
    not count.

    Args:
        seconds: float; None for no watchdog.
        fail: is called with the reason before the process ends.
    """
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(pathlib.Path(folder), seconds, fail, over), daemon=True)
    if seconds is not None:
        thread.start()
    try:
        yield
    finally:
        over.set()


def _watch(folder, seconds, fail, over):
    turn = min(1.0, seconds / 4)
    seen, idle, now = _signs[0], 0.0, time.monotonic()
    while not over.wait(turn):
        before, now = now, time.monotonic()
        idle = idle + min(now - before, 2 * turn) if seen == _signs[0] else 0.0
        seen = _signs[0]
        if idle >= seconds:
            report = threading.Thread(target=_report, args=(folder, seconds, fail), daemon=True)
            report.start()
            report.join(REPORTING)
            for worker in multiprocessing.active_children():
                worker.kill()
            os._exit(CODE)


def _report(folder, seconds, fail):
    stacks, stopped = folder / "hang.txt", _stopped_workers()
    reason = f"{folder}: nothing was done for {seconds:g} s, config.train.hang_seconds; "
    reason += f"data worker {', '.join(stopped)} is stopped; " if stopped else ""
    reason += f"the stacks of its threads are in {stacks}; the same command goes on from the last checkpoint"
    print(f"error: {reason}", file=sys.stderr)
    with contextlib.suppress(OSError, UserError):  # the process ends with its code, whatever its disk does
        with stacks.open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
        fail(reason)


def _stopped_workers():
    """The numbers of this process's children that a signal has stopped; [] where the system does not tell."""
    found = []
    for worker in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            state = pathlib.Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0]
            found += [str(worker.pid)] if state in "Tt" else []
    return found
