"""What every script shares: flags, the one place where errors are caught, and the process's own settings."""

import argparse
import contextlib
import ctypes
import multiprocessing
import os
import pathlib
import signal
import sys
import traceback
import warnings

from absl import flags, logging

from research import config as configs
from research import runs, warm_start
from research.data import hub
from research.data.cache import cache_home
from research.data.reading import read_lines
from research.errors import UserError, out_of_memory
from research.inference import folder_run
from research.stderr import lasting_stderr

_UNRAISABLE = sys.unraisablehook
REPORT = "error: not foreseen; unless code of your own is in the lines above, please report them as an issue"


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(2, f"{message}; --help lists the flags")


def parser(doc, config=False, workdir=None):
    """A parser whose help is the script's docstring.

    Args:
        config: whether the script takes --config and --config.<path>=<value>.
        workdir: the help of --workdir; None where the script takes none.
    """
    result = _Parser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False, allow_abbrev=False
    )
    result.add_argument("--help", "-h", action="store_true", help="show this; with --config its values")
    result.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if config:
        result.add_argument("--config", metavar="FILE[:SIZE]", help="configs/<name>.py, with a size: base, cpu, tiny")
        result.add_argument(
            "--config.PATH", dest="example", metavar="VALUE", help="override a leaf; the fields stand below"
        )
    if workdir:
        result.add_argument("--workdir", metavar="FOLDER", help=workdir)
    return result


def run(make_parser, main):
    """Parses sys.argv, calls main(arguments, overrides) and ends the process with its exit code.

    A stderr that cannot be written is not an error.
    """
    stdout = sys.stdout = sys.stdout or open(os.devnull, "w")  # None, if it is closed
    stdout.reconfigure(errors="backslashreplace")  # a path may hold bytes that are no text
    try:
        with lasting_stderr(), contextlib.redirect_stdout(_Stdout(stdout)):
            code = _exit_code(make_parser, main)
        stdout.flush()
    except OSError:  # _exit_code has reported it; without this, Python would flush again when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
    sys.exit(code)


class _Stdout:
    """stdout that raises a UserError if it cannot be written, except for a BrokenPipeError."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        return self._checked(self.stream.write, text)

    def flush(self):
        self._checked(self.stream.flush)

    def _checked(self, call, *arguments):
        try:
            return call(*arguments)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(5, f"stdout: cannot be written: {error.strerror}") from error


def _exit_code(make_parser, main):
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        signal.signal(signal.SIGINT, _interrupted)
        process_settings()
        parser = make_parser()
        overrides, rest = _overrides(arguments)
        parsed = parser.parse_args(rest)
        if parsed.help:
            _help(parser, parsed, overrides)
            code = 0
        else:
            code = main(parsed, overrides) or 0
        sys.stdout.flush()
    except UserError as error:
        code = error.code
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:  # the reader of stdout went away, as head does
        code = 141
    except Exception as error:
        code = 1
        if memory := out_of_memory(error):
            code = memory.code
            print(f"error: {memory}", file=sys.stderr)
        else:
            traceback.print_exc()
            print(REPORT, file=sys.stderr)
    return code


def _interrupted(number, frame):
    """Ends the process here and now. A KeyboardInterrupt would be lost where it fell into a finalizer or a callback of
    a library, and what libraries do at exit waits for threads that it left in disorder."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for worker in multiprocessing.active_children():
        worker.terminate()
    shown = b"\x1b[?25h" if os.isatty(2) else b""  # the cursor, which a bar has hidden
    os.write(2, shown + b"error: interrupted; the same command begins again, or goes on from its last checkpoint\n")
    os._exit(130)


def load_config(parsed, overrides, adopt=True):
    """The config that --config, --config.<path>=<value> and --workdir ask for: (config, file, size).

    A run folder knows its config; given alone, --workdir resumes it. With `adopt`, the model gets the form of
    config.init_from's model, except for fields that a flag sets.
    """
    workdir = getattr(parsed, "workdir", None)
    if parsed.config is not None:
        config, file, size = configs.load_file(parsed.config)
    elif workdir is not None:
        config = runs.read_config(workdir)
        saved = runs.read_saved(workdir)
        file, size = saved["file"], saved["size"]
    else:
        raise UserError(2, "--config: needed, as --config=configs/digits_cnn.py")
    config = configs.override(config, overrides)
    return warm_start.adopt(config, overrides, workdir) if adopt else config, file, size


def load_run(workdir, overrides=(), *, needs_data=False, paired=False):
    """Returns the run of --workdir, a run folder or hf:FOLDER_OR_NAME; says so if it is not finished.

    Args:
        overrides: {path: value} of --config flags; only hf:FOLDER_OR_NAME accepts them, for its data.
        needs_data, paired: see folder_run.load.
    """
    if required(workdir, "--workdir").startswith(hub.PREFIX):
        return folder_run.load(workdir, dict(overrides), needs_data=needs_data, paired=paired)
    no_overrides(overrides)
    run = runs.load(workdir)
    if (run.result or {}).get("status") != "finished":
        print(f"{run.folder}: not finished; this is its checkpoint of step {run.step}", file=sys.stderr)
    return run


def required(value, flag):
    """The value of a flag that the script cannot do without."""
    if value is None:
        raise UserError(2, f"{flag}: needed; --help lists the flags")
    return value


def as_text(argument):
    """A text of the command line; bytes that are no UTF-8 come as surrogates, and are replaced."""
    return argument.encode(errors="surrogateescape").decode(errors="replace")


def texts(text, file, flag):
    """Returns the texts that a script is given, by a flag or as a file's lines, and their names for errors.

    Raises:
        UserError: 2 unless one of the two is given; 3 for a file that cannot be read, is not UTF-8, or is empty.
    """
    if (text is None) == (file is None):
        raise UserError(2, f"give {flag} or --file, and not both")
    if file is None:
        return [as_text(text)], [flag]
    found = read_lines(file, pipe=True)
    if not found:
        raise UserError(3, f"{file}: holds no text")
    return found, [f"{file}, line {i + 1}" for i in range(len(found))]


def check_output(path, flag, suffix=""):
    """Whether the file that a flag asks for can be written, before the work: it is in a folder that exists.

    Raises:
        UserError: 2.
    """
    if path is not None and (pathlib.Path(path).suffix != suffix and suffix or not pathlib.Path(path).parent.is_dir()):
        raise UserError(2, f"{flag}: {path} is not a {suffix or 'file'} in a folder that exists")


def write_lines(path, lines):
    """Writes the lines that a flag asked for."""
    try:
        pathlib.Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise UserError(5, f"{path}: cannot be written: {error.strerror}") from error


def no_overrides(overrides):
    """For scripts that take no config."""
    for path in overrides:
        raise UserError(2, f"--config.{path}: this script takes no config; a run folder knows its own")


def _overrides(arguments):
    """Takes --config.<path>=<value> and --config.<path> <value> out of the arguments."""
    overrides, rest, i = {}, [], 0
    while i < len(arguments):
        argument = arguments[i]
        i += 1
        if not argument.startswith("--config."):
            rest.append(argument)
            continue
        path, equals, value = argument.removeprefix("--config.").partition("=")
        if not equals:
            if i == len(arguments) or arguments[i].startswith("--"):
                raise UserError(2, f"--config.{path}: needs a value, as --config.{path}=...")
            value = arguments[i]
            i += 1
        overrides[path] = value
    return overrides, rest


def _help(parser, parsed, overrides):
    print(parser.format_help())
    if hasattr(parsed, "config"):
        config = load_config(parsed, overrides, adopt=False)[0] if parsed.config else None
        print(f"fields of the config{f' {parsed.config}' if parsed.config else ', with their defaults'}:")
        print("\n".join(configs.describe(config)))


def process_settings():
    """Compile cache, quiet libraries, memory: what a process of ours sets before it starts."""
    import jax

    flags.FLAGS.mark_as_parsed()  # Grain's workers ask absl for a flag of theirs
    logging.set_verbosity(logging.ERROR)
    warnings.filterwarnings("ignore")
    # multiprocessing's resource tracker would warn after the last line of a process that ends without cleaning up.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_home() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    sys.unraisablehook = _unraisable
    keep_freed_memory()


def _unraisable(found):
    """Reports an exception that cannot be caught, except for TensorStore's after a failed save: its threads call an
    event loop that Orbax has closed, once per array. The save itself raises the error."""
    if not (found.exc_type is RuntimeError and str(found.exc_value) == "Event loop is closed"):
        _UNRAISABLE(found)


def keep_freed_memory():
    """Has glibc keep what is freed: XLA's CPU client gets and frees its large buffers each step, and mapping them anew
    costs up to two fifths of the time in page faults. Where there is another C library, nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mmap_max, trim_threshold, top_pad = -4, -1, -2
        for parameter, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**28)):
            mallopt(parameter, value)
