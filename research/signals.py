"""SIGINT and SIGTERM as the loop takes them: a first one is noted and the state saved, a second one is not held."""

import contextlib
import signal

from research.errors import UserError


@contextlib.contextmanager
def caught():
    """A list that a SIGINT or SIGTERM is put into, for the loop to find; a second one acts as outside of it."""
    received = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handler(number, frame):
        received.append(number)
        signal.signal(number, before[number])

    try:
        for number in before:
            signal.signal(number, handler)
    except ValueError:  # not the main thread: signals are someone else's
        before = {}
    try:
        yield received
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def stopped(received, folder, step=None):
    """Returns the error of a run that a signal stopped at a step, or of a sweep, which has no step."""
    by = signal.Signals(received[0]).name
    if step == 0:
        message = f"stopped by {by} before its first step; nothing was saved; the same command starts the run again"
    else:
        where = "" if step is None else f" at step {step}"
        message = f"stopped{where} by {by}; the state was saved; the same command resumes"
    return UserError(128 + received[0], f"{folder}: {message}")
