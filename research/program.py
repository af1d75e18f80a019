"""What a run asks of its devices, and the program that answers one run; research.studies.population answers many.

A run is a generator of these requests. It knows its config, folder and data; the state it never holds.
"""

import resource
import sys
from typing import Any, NamedTuple

import jax

from research import sharding
from research.evaluation import accumulate, on_devices
from research.randomness import run_key
from research.train_step import eval_variables, make_eval_step, make_train_step


class Place(NamedTuple):
    """Train from this state; None where the one that is held is not needed any longer."""

    state: Any  # TrainState, donated


class Read(NamedTuple):
    """The state as it is now: TrainState."""


class Step(NamedTuple):
    """Some steps in one dispatch: a function that waits for what they measured, {name: (sum, count)} as NumPy arrays,
    each with an axis of steps where several are done in a dispatch."""

    step: int  # done before
    count: int
    batch: Any  # {name: array[B, ...]}; [k, B, ...] with steps_per_call = k > 1


class Evaluate(NamedTuple):
    """Sums and arrays of a whole split, as research.evaluation.accumulate gives them; None where it was broken off."""

    step: int  # that the variables are of
    role: str  # of the split
    variables: Any = None  # {"params": ..., collection: ...}; those of the state, if not given


def drive(run, answer):
    """Runs a generator of requests to its end, and returns what it does.

    Args:
        answer: request -> answer; what it raises, the run sees where it asked.
    """
    go_on, value = run.send, None
    while True:
        try:
            request = go_on(value)
        except StopIteration as end:
            return end.value
        try:
            go_on, value = run.send, answer(request)
        except Exception as error:
            go_on, value = run.throw, error


def of_one_run(setup, stop):
    """request -> answer, for the run of a Setup; `stop` is looked at between the batches of an evaluation."""
    whole = sharding.replicated(setup.mesh)
    train_step = make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)
    eval_step = make_eval_step(setup.model, setup.task, setup.mesh)
    key, constants = sharding.place(run_key(setup.config.seed), whole), sharding.place(dict(setup.constants), whole)
    held = {}

    def answer(request):
        match request:
            case Place(state):
                held["state"] = state
            case Read():
                return held["state"]
            case Step(_, count, batch):
                counted = (count,) if setup.config.train.steps_per_call > 1 else ()
                held["state"], measured = train_step(held["state"], constants, batch, key, *counted)
                return lambda: jax.device_get(measured)
            case Evaluate(_, role, variables):
                variables = eval_variables(held["state"], constants) if variables is None else variables
                variables = on_devices(setup, variables)
                found = accumulate(setup, role, lambda *rows: eval_step(variables, *rows), stop=stop)
                return found and found[0]

    return answer


def peak_memory():
    """The most bytes that were in use: of the first device, or of this process where the device does not tell."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
