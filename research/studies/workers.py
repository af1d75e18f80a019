"""Processes that do one thing after another for one that waits: started, given a share of the machine, stopped."""

import contextlib
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from typing import NamedTuple

from research.errors import UserError

GRACE = 30.0  # seconds that a process has to save its state once it is asked to stop


class Share(NamedTuple):
    """What a process may use of this machine."""

    cores: tuple[int, ...]  # () where the system does not tell
    gpus: tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them; () where there are none
    memory: float | None = None  # share of these GPUs' memory, where others use them too


def shares(count):
    """The machine in `count` shares: cores and GPUs dealt out, and used by several where there are too few."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    gpus = _gpus()

    def part(items, i):
        return tuple(items[i * len(items) // count : (i + 1) * len(items) // count] or items[i % len(items) :][:1])

    memory = 0.9 / -(-count // len(gpus)) if gpus and count > len(gpus) else None
    return [Share(*(part(items, i) if items else () for items in (cores, gpus)), memory) for i in range(count)]


def _gpus():
    """The GPUs that this process may use, without starting any."""
    if not {"cuda", "gpu"} & set(os.environ.get("JAX_PLATFORMS", "cuda").split(",")):
        return []
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name]
    place = pathlib.Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(place.iterdir())))] if place.is_dir() else []


class Worker:
    """A process of ours. It does what it is asked, one thing at a time, and ends with the process that started it.

    It is in a process group of its own, so that Ctrl-C reaches it by `stop` alone, and once.
    """

    def __init__(self, share, settings):
        """Starts it: `settings` is called there first."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, share, settings))
        self.process.start()
        theirs.close()
        self.share, self.state = share, "idle"  # or busy, or ended

    def ask(self, function, *arguments):
        """Has it call a function of a module; `answer` gives what that returns."""
        self.state = "busy"
        with contextlib.suppress(ConnectionError):  # it is gone: `answer` says so
            self.connection.send((function, arguments))

    def answer(self):
        """What the last call returned; waits for it.

        Raises:
            UserError: that the function raised.
            RuntimeError: for any other exception there, whose traceback it has printed.
            EOFError: where the process is gone.
        """
        try:
            kind, value = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            self.process.join()
            raise EOFError(_ending(self.process.exitcode)) from error
        self.state = "idle"
        if kind == "done":
            return value
        raise value if kind == "error" else RuntimeError(value)

    def dump_stacks(self):
        """Has it write where each of its threads stands to its stderr."""
        self._signal(signal.SIGUSR1)
        time.sleep(0.2)

    def stop(self):
        """Asks it to save its state and to stop."""
        self._signal(signal.SIGTERM)

    def end(self, grace=0.0):
        """Waits so long for it to end, and then kills it."""
        if self.state == "ended":
            return
        self.state = "ended"
        self.connection.close()  # by which an idle one ends
        self.process.join(grace)
        if self.process.is_alive():
            self._signal(signal.SIGKILL)
            self.process.join()
        self.process.close()

    def _signal(self, number):
        if self.process.is_alive():
            os.kill(self.process.pid, number)


@contextlib.contextmanager
def crew(settings):
    """hire(share) -> Worker, within: one that has this share and nothing to do, else a new one."""
    hired = []

    def hire(share):
        for worker in hired:
            if worker.state == "idle" and worker.share == share:
                return worker
        hired.append(Worker(share, settings))
        return hired[-1]

    try:
        yield hire
    finally:
        for worker in hired:
            worker.end()


def wait(workers, seconds):
    """Those of the workers that have something to say or are gone; waits at most so long for the first."""
    ready = multiprocessing.connection.wait([worker.connection for worker in workers], seconds)
    return [worker for worker in workers if worker.connection in ready]


def write_to(path):
    """Whatever this process prints, its libraries too, goes to the end of a file from now on."""
    sys.stdout.flush()
    sys.stderr.flush()
    with open(path, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _ending(code):
    if code is None or code >= 0:
        return f"the process ended with {code}"
    name = signal.Signals(-code).name
    return f"the process was ended by {name}" + (", as where memory runs out" if name == "SIGKILL" else "")


def _serve(connection, share, settings):
    """What a worker does: one call after another, until there is nobody to ask."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if share.cores:
        os.sched_setaffinity(0, share.cores)
    if share.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(share.gpus)
    if share.memory:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{share.memory:.2f}")
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    settings()
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer = ("done", function(*arguments))
        except UserError as error:
            answer = ("error", error)
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            answer = ("defect", f"{type(error).__name__}: {' ... '.join(dict.fromkeys((lines[0], lines[-1])))}")
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionError):
            return


def _stop_with_parent():
    """The process that asks is gone, without a word if it was killed: what is being done saves its state and stops."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
