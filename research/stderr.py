"""stderr, and its copy in log.txt.

A run does not depend on stderr: the terminal may be closed, the reader of a pipe gone, or the disk full.
"""

import collections
import contextlib
import io
import os
import sys
import time
import traceback

from research.errors import UserError


def counted(items, total, what, size=lambda item: 1, stream=None):
    """The items, and on stderr how many there were and the time left: at most a line in two seconds, none for few.

    Args:
        size: item -> how many it counts for.
    """
    stream, done, began = stream or sys.stderr, 0, time.monotonic()
    shown = began
    for item in items:
        yield item
        done, now = done + size(item), time.monotonic()
        if done and now - shown > 2:
            shown, left = now, int((now - began) / done * (total - done))
            print(f"{done}/{total} {what}  {left // 60}:{left % 60:02d} left", file=stream, flush=True)


def warn(text):
    """Prints a warning about a fault from which the program has recovered."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


class Lasting(io.TextIOBase):
    """A text stream that never raises: after a write to the underlying stream has failed, text is dropped."""

    def __init__(self, stream):
        """Wraps a stream; None if there is none, such as a closed stderr."""
        self.stream = stream

    def write(self, text):
        if self.stream is not None:
            try:
                self.stream.write(text)
                self.stream.flush()
            except (OSError, ValueError):  # ValueError: it was closed
                stream, self.stream = self.stream, None
                # Python flushes the stream's buffer when it exits, and would fail again: send it to the null device.
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, stream.fileno())
                    os.close(nowhere)
        return len(text)

    def isatty(self):
        return self.stream is not None and self.stream.isatty()


class Stderr(io.TextIOBase):
    """stderr of a training process: writes text to a terminal, pipe or file that may fail, and to copies."""

    def __init__(self, stream):
        self.reader, self.copies = Lasting(stream), []
        self.early = collections.deque(maxlen=1000)  # text that was written before there was a copy

    def write(self, text):
        self.reader.write(text)
        self.keep(text)
        return len(text)

    def keep(self, text):
        """Writes text to the copies only."""
        if not self.copies:
            self.early.append(text)
        for copy in self.copies:
            copy.write(text)

    def isatty(self):
        return self.reader.isatty()


@contextlib.contextmanager
def lasting_stderr():
    """Replaces sys.stderr by a Stderr."""
    before = sys.stderr
    if not isinstance(before, Stderr):
        sys.stderr = Stderr(before)
    try:
        yield
    finally:
        sys.stderr = before


@contextlib.contextmanager
def kept(path):
    """Appends everything written to sys.stderr, a Stderr, to a file; then the error that ended the block, if any."""
    try:
        file = path.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError:  # a run does not depend on its log
        file = None
    stream, copy = sys.stderr, Lasting(file)
    copy.write("".join(stream.early))
    stream.copies.append(copy)
    try:
        yield
    except Exception as error:
        ours = isinstance(error, UserError)
        copy.write(f"error: {error}\n" if ours else "".join(traceback.format_exception(error)))
        raise
    finally:
        stream.copies.remove(copy)
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
