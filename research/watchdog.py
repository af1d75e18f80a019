"""Ends a process that hangs, for example because a data worker is stopped or a disk does not respond."""

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
REPORTING = 5.0  # seconds for the report; its disk may be the one that does not respond
_progress = [0]  # how often this process has called `alive`


def alive():
    """Records progress: a dispatch of steps, or a batch of an evaluation, is done."""
    _progress[0] += 1


@contextlib.contextmanager
def watched(folder, seconds, fail):
    """Ends the process with code 8 if `alive` is not called for some time within the block.

    The stacks of all threads are written to hang.txt in the folder. Time during which the process is stopped, for
    example by Ctrl-Z, does not count.

    Args:
        seconds: float; None for no watchdog.
        fail: called with the reason before the process ends.
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
    seen, idle, now = _progress[0], 0.0, time.monotonic()
    while not over.wait(turn):
        before, now = now, time.monotonic()
        idle = idle + min(now - before, 2 * turn) if seen == _progress[0] else 0.0
        seen = _progress[0]
        if idle >= seconds:
            report = threading.Thread(target=_report, args=(folder, seconds, fail), daemon=True)
            report.start()
            report.join(REPORTING)
            for worker in multiprocessing.active_children():
                worker.kill()
            os._exit(CODE)


def _report(folder, seconds, fail):
    stacks, stopped = folder / "hang.txt", _stopped_workers()
    reason = f"{folder}: no progress for {seconds:g} s (config.train.hang_seconds); "
    reason += f"data worker {', '.join(stopped)} is stopped; " if stopped else ""
    reason += f"the stacks of all threads are in {stacks}; the same command resumes from the last checkpoint"
    print(f"error: {reason}", file=sys.stderr)
    with contextlib.suppress(OSError, UserError):  # the exit code matters more than the report
        with stacks.open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
        fail(reason)


def _stopped_workers():
    """Returns the process ids of the children that are stopped by a signal; [] if the system does not report it."""
    found = []
    for worker in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            state = pathlib.Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0]
            found += [str(worker.pid)] if state in "Tt" else []
    return found
