"""What goes wrong by a user's hand or on a user's machine: one class, one line, one exit code."""

import contextlib
import difflib
import sysconfig
import traceback


class UserError(Exception):
    """A mistake or a fault that its reader can mend.

    Args:
        code: the exit code of the scripts. 2 a mistake in flags or config, 3 damaged or wrong data, 4 no checkpoint to
            trust, 5 a folder that cannot be written, or a disk or memory that is full, 6 numbers not finite, 7 the run
            is being written by another process, 8 something took longer than it may, 130 and 143 stopped by a signal;
            0 a run that a search has pruned, which is no failure.
        message: one line: where, what it is, what it may be.
    """

    def __init__(self, code, message):
        super().__init__(code, message)  # both, or it does not come back whole from a worker process
        self.code = code

    def __str__(self):
        return " ".join(str(self.args[1]).split())


@contextlib.contextmanager
def users_code(what, caller):
    """Within, what a user's own file raises becomes one line that names the file and the line.

    Args:
        what: what the line begins with: the field that names the thing.
        caller: __file__ of who calls, which is not at fault.

    Raises:
        UserError: 2, in place of any Exception that is none.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text, place = str(error).splitlines() or [""], place_of(error.__traceback__, caller)
        raise UserError(2, f"{what}: {place}{type(error).__name__}: {text[0]}") from error


def place_of(trace, *callers):
    """Returns "file, line N: " for the innermost frame outside Python, its packages and `callers`; "" if none.

    Args:
        trace: a traceback.
        callers: __file__ of those that are not at fault.
    """
    paths = sysconfig.get_paths()
    libraries = (*(paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")), "<", *callers)
    frames = [f for f in traceback.extract_tb(trace) if not f.filename.startswith(libraries)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""


def out_of_memory(error):
    """Returns the UserError of an allocation that failed, on the host or a device; None for any other error."""
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
        return None
    text = (str(error).splitlines() or [""])[0].removeprefix("RESOURCE_EXHAUSTED: ")[:200].rstrip(".")
    return UserError(
        5, f"out of memory: {text or 'on the host'}; a lower config.data.batch_size or config.data.eval_batch_size, "
        "more config.train.microbatches, or config.model.remat=true, where the model has it, need less"
    )  # fmt: skip


def defined_at(function):
    """ " (file, line N)": where a function stands; "" where nothing knows."""
    code = getattr(function, "__code__", None)
    return f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""


def nearest(name, known):
    """ "; did you mean X?", or "" where nothing in `known` resembles `name`."""
    close = difflib.get_close_matches(str(name), map(str, known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def pick(known, name, place):
    """known[name], or an error that lists what is known and names the nearest."""
    if name not in known:
        raise UserError(
            2, f"{place}: {name!r} is unknown; known are {', '.join(map(str, sorted(known)))}{nearest(name, known)}"
        )
    return known[name]
