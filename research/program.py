"""What runs ask of the devices, who is answered when, and the program of one run; research.studies.population has that
of many.

A run is a generator of these requests. It knows its config, folder and data; the state it never holds.
"""

import math
import resource
import sys
from typing import Any, NamedTuple

import jax

from research import sharding
from research.evaluation import accumulate, on_devices
from research.optimizers import scaled
from research.randomness import run_key
from research.train_step import eval_variables, make_eval_step, make_train_step


class Place(NamedTuple):
    """Train from this state; None where the one that is held is not needed any longer."""

    state: Any  # TrainState, donated
    rate: float = 1.0  # factor of the learning rate


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


def drive(runs, answer):
    """Runs generators of requests to their ends, those together that ask for the same: [what each returns or raises].

    Args:
        answer: {number of a run: request}, all of one kind -> {number: answer}; what it raises, these runs see where
            they asked.
    """
    ended, asked = {}, {}

    def go_on(i, function, value):
        try:
            asked[i] = function(value)
        except StopIteration as end:
            ended[i] = end.value
        except Exception as error:
            ended[i] = error

    for i, run in enumerate(runs):
        go_on(i, run.send, None)
    while asked:
        first = min(map(_order, asked.values()))
        together = {i: asked.pop(i) for i in [i for i, request in asked.items() if _order(request) == first]}
        try:
            answers = answer(together)
        except Exception as error:
            for i in together:
                go_on(i, runs[i].throw, error)
        else:
            for i in together:
                go_on(i, runs[i].send, answers[i])
    return [ended[i] for i in range(len(runs))]


def _order(request):
    """Who is behind goes first, so that runs meet: one that goes on from an older checkpoint, say."""
    match request:
        case Place():
            return (-2, 0, "", 0)
        case Read():
            return (-1, 0, "", 0)
        case Evaluate(step, "validation", _):
            return (step, 0, "", 0)
        case Step(step, count, _):
            return (step, 1, "", count)
        case Evaluate(_, role, _):
            return (math.inf, 2, role, 0)


def of_one_run(setup, stop):
    """The `answer` of `drive` for a Setup's one run; `stop` is looked at between the batches of an evaluation."""
    whole = sharding.replicated(setup.mesh)
    eval_step = make_eval_step(setup.model, setup.task, setup.mesh)
    key, constants = sharding.place(run_key(setup.config.seed), whole), sharding.place(dict(setup.constants), whole)
    held = {"rate": None}

    def one(request):
        match request:
            case Place(state, rate):
                held["state"] = state
                if rate != held["rate"] and state is not None:
                    held["rate"], optimizer = rate, setup.optimizer if rate == 1 else scaled(setup.optimizer, rate)
                    held["step"] = make_train_step(setup.model, setup.task, optimizer, setup.config, setup.mesh)
            case Read():
                return held["state"]
            case Step(_, count, batch):
                counted = (count,) if setup.config.train.steps_per_call > 1 else ()
                held["state"], measured = held["step"](held["state"], constants, batch, key, *counted)
                return lambda: jax.device_get(measured)
            case Evaluate(_, role, variables):
                variables = eval_variables(held["state"], constants) if variables is None else variables
                variables = on_devices(setup, variables)
                found = accumulate(setup, role, lambda *rows: eval_step(variables, *rows), stop=stop)
                return found and found[0]

    return lambda asked: {i: one(request) for i, request in asked.items()}


def peak_memory():
    """The most bytes that were in use: of the first device, or of this process where the device does not tell."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
