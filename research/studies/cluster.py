"""Trials as an array of Slurm's, by submitit, which is imported here alone: an extra."""

import re
import subprocess
import sys
import tempfile

from research.errors import UserError
from research.studies import schedule

CLUSTER = "slurm"


def options(text):
    """slurm:timeout_min=240,slurm_partition=gpu -> {"timeout_min": 240, "slurm_partition": "gpu"}, submitit's names.

    Raises:
        UserError: 2.
    """
    kind, _, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    if kind != "slurm" or not all(name and value for name, _, value in pairs):
        raise UserError(
            2, f"--executor: {text!r} is not of the form slurm or slurm:timeout_min=240,slurm_partition=gpu"
        )
    return {name: int(value) if value.isdigit() else value for name, _, value in pairs}


def submit(plan, own, function, tasks, at_once):
    """Submits an array that does the work of a plan; its jobs, submitit's.

    Args:
        own: of `options`.
        function, tasks: a task calls the function with a tuple of arguments.
        at_once: how many tasks may run at a time.

    Raises:
        UserError: 2, where submitit or Slurm is not here, or does not know an option; nothing was written.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError(2, "--executor=slurm: needs submitit: pip install submitit") from error

    def make(folder):
        executor = submitit.AutoExecutor(folder=folder, cluster=CLUSTER)
        executor.update_parameters(name=plan.folder.name, slurm_array_parallelism=at_once, **own)
        return executor

    try:
        with tempfile.TemporaryDirectory() as nowhere:
            make(nowhere)  # it makes its folder before it looks at the options
        schedule.begin(plan)
        return make(plan.folder / schedule.LOGS).map_array(function, *zip(*tasks))
    except (RuntimeError, NameError, TypeError, ValueError, submitit.core.utils.FailedJobError) as error:
        raise UserError(2, f"--executor=slurm: {type(error).__name__}: {error}") from error


def without(arguments, flags):
    """Arguments without some flags, --flag=value or --flag value."""
    found = []
    for before, argument in zip(["", *arguments], arguments):
        if argument.partition("=")[0] not in flags and before not in flags:
            found.append(argument)
    return found


def again(arguments):
    """The sweep script with other arguments, in a task; its exit code."""
    return subprocess.run([sys.executable, "-m", "experiments.sweep", *arguments]).returncode


def check_storage(url):
    """Whether the tasks of an array can share a search.

    Raises:
        UserError: 2.
    """
    if url is None:
        raise UserError(2, "--executor: a search by several processes needs --storage=URL")
    if re.search(r"://[^:/@\s]*:[^@\s]+@", url):
        raise UserError(
            2, "--storage: has a password, which --executor would write to a file; leave it to ~/.pgpass or ~/.my.cnf"
        )
