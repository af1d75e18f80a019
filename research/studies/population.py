"""Runs that differ in numbers alone, trained by one program: their state has a leading axis of members.

Each member is the loop's own generator (research.loop.run), with its folder, order of data, log and checkpoints. What
several of them ask for at the same step one program answers, by `vmap` or by `lax.map`, which does one member after the
other: a vmapped product is a batched one and gains, a vmapped convolution a grouped one, which XLA's CPU does slowly.
Both are timed, and the faster one is taken.
"""

import functools
import hashlib
import json
import math
import sys
import time
import traceback
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from research import config as configs
from research import loop, manifest, runs, sharding, signals
from research.backend import traced_for
from research.data.batches import read
from research.data.cache import cache_home
from research.evaluation import accumulate
from research.optimizers import make_optimizer
from research.program import Place, Read, Step, drive
from research.randomness import run_key
from research.setup import build, resolve
from research.stderr import lasting_stderr
from research.train_step import eval_keys, eval_variables, make_update, run_steps

# Leaves that are only ever used in arithmetic, so that they may be traced. The seed is one more: it makes the key.
NUMBERS = "learning_rate weight_decay momentum b1 b2 beta adam_b1 adam_b2 dropout label_smoothing ema".split()
FORMS = ("vmap", "map")
MOST = 16  # members where the user does not say


def likeness(config):
    """A text that two configs share where they may be members of one population; None for one that may be of none.

    Text that is cut to buckets may not: batches would be of several lengths, and dropout draws by shape.
    """
    if config.train.parallel != "jit" or config.data.get("buckets"):
        return None
    if config.train.on_nonfinite == "rollback" or config.train.debug_nans:  # needs a program per run
        return None
    blank = lambda path, value: type(value).__name__ if path == "seed" or _is_number(path, value) else value
    return json.dumps({path: blank(path, value) for path, value in configs.leaves(config).items()})


def _is_number(path, value):
    return path.rsplit(".", 1)[-1] in NUMBERS and isinstance(value, float)


def grouped(trials, most):
    """Trials in groups of at most `most` that may be trained as one, as even as can be, in their order."""
    alike = {}
    for trial in trials:
        alike.setdefault(likeness(trial.config) or trial.name, []).append(trial)
    found = []
    for same in alike.values():
        count = -(-len(same) // most)
        found += [tuple(same[i * len(same) // count : (i + 1) * len(same) // count]) for i in range(count)]
    return found


def train(members, *, file="", size="", devices=None, form=None, through=()):
    """Trains runs together, or goes on with them; what each becomes stands in its folder.

    Args:
        members: [(config, workdir)] of one likeness.
        file, size: as of loop.train.
        through: of loop.train, one a member, or None.
        form: vmap or map; the faster one, if not given, as it was timed here or before on a machine like this.

    Returns:
        [result, or the exception that ended it] of the members; None where the program cannot be made for several.
    """
    began = time.monotonic()
    tokenizer = next((found for _, folder in members if (found := runs.read_tokenizer(folder))), None)
    config, dataset, mesh = resolve(members[0][0], devices, tokenizer)
    setup = loop.prepare_run(config, dataset, mesh, members[0][1])
    own = [configs.resolve(config, dataset, mesh.devices.size) for config, _ in members]
    with signals.caught() as stop, lasting_stderr():
        program = Population(setup, own, form, stop)
        if not program.can_be_traced():
            return None
        generators = [
            loop.run(
                setup._replace(config=config), folder, stop, began, file, size, label=f"{i}: ", together=len(members)
            )
            for i, (config, (_, folder)) in enumerate(zip(own, members), start=1)
        ]
        for i, (watch, (_, folder)) in enumerate(zip(through, members)):
            generators[i] = watch(generators[i], folder, setup.times["train"]) if watch else generators[i]
        return drive(generators, program.answer)


class Population:
    """The program of several runs: answers what `drive` collects from them.

    It holds the state of all, [M, ...] on each leaf. Who asks for no step is computed and thrown away, or, in the
    form `map`, skipped: nobody is recompiled when a member has ended.
    """

    def __init__(self, setup, members, form, stop):
        """setup: of one of them; members: their configs, resolved; form: as of `train`; stop: as of loop.run."""
        self.setup, self.n, self.stop, self.traced = setup, len(members), stop, {}
        self.kept = cache_home() / "forms" / f"{_digest(setup, members)}.json"
        self.form = form or (runs.read_json(self.kept) or {}).get("form")
        leaves = [configs.leaves(config) for config in members]
        varied = [path for path, value in leaves[0].items() if _is_number(path, value)]
        numbers = {path: [own[path] for own in leaves] for path in varied}
        numbers = {path: np.asarray(own, np.float32) for path, own in numbers.items() if len(set(own)) > 1}
        keys = jnp.stack([run_key(config.seed) for config in members])
        self.whole = sharding.replicated(setup.mesh)
        self.numbers, self.keys, self.constants = sharding.place((numbers, keys, dict(setup.constants)), self.whole)
        self.stacked_steps = setup.config.train.steps_per_call > 1
        cut = sharding.split(setup.mesh, 2 if self.stacked_steps else 1)
        self.cut, self.state, self.placed, self.step, self.eval_step = cut, None, {}, None, None
        self.stack = jax.jit(lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees), out_shardings=self.whole)
        self.take = jax.jit(
            lambda tree, i: jax.tree.map(partial(lax.dynamic_index_in_dim, index=i, keepdims=False), tree)
        )

    def answer(self, asked):
        """{number: request} -> {number: answer}."""
        kind = type(next(iter(asked.values())))
        if kind is Place:
            self.placed |= {i: request.state for i, request in asked.items() if request.state is not None}
            return dict.fromkeys(asked)
        if self.placed:  # by all that will
            self.state = self.stack(self._of_all(self.placed))
            self.placed = {}
        if kind is Read:
            return {i: self.take(self.state, i) for i in asked}
        return self._step(asked) if kind is Step else self._evaluate(asked)

    def can_be_traced(self):
        """Whether model, task and optimizer take arrays for the numbers that vary; tells why where they do not."""
        try:
            self._trace(self.form or FORMS[0])
        except Exception:
            traceback.print_exc()
            return False
        return True

    def _trace(self, form):
        """The step of a form, traced, and once: what is compiled of it is not traced again when it is called."""
        if form in self.traced:
            return self.traced[form]
        config, times = self.setup.config, self.setup.times
        k = min(config.train.steps_per_call, times["eval"], times["train"])
        lead = (self.n, k, config.data.batch_size) if self.stacked_steps else (self.n, config.data.batch_size)
        batch = {**read(self.setup.splits["train"], [0]), "mask": np.ones(1, np.float32)}
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*lead, *x.shape[1:]), x.dtype), batch)
        state = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.n, *x.shape), x.dtype), self.setup.abstract)
        own = (self.constants, batch, self.keys, self.numbers, *self._rest({}, 1))
        given = (self.whole, self.whole, self.cut, *[self.whole] * (len(own) - 2))
        compiled = partial(jax.jit, in_shardings=given, out_shardings=self.whole, donate_argnums=0)
        self.traced[form] = compiled(make_step(self.setup, form)).trace(state, *own)
        return self.traced[form]

    def _of_all(self, trees):
        """A list with each member's; those that have none get another one's."""
        some = next(iter(trees.values()))
        return [trees.get(i, some) for i in range(self.n)]

    def _rest(self, asked, count):
        """bool[M], who takes part; with several steps a dispatch how many they are."""
        active = np.asarray([i in asked for i in range(self.n)])
        return (active, np.int32(count)) if self.stacked_steps else (active,)

    def _step(self, asked):
        batches = self._of_all({i: request.batch for i, request in asked.items()})
        batch = sharding.place(jax.tree.map(lambda *x: np.stack(x), *batches), self.cut)
        rest = sharding.place(self._rest(asked, next(iter(asked.values())).count), self.whole)
        own = (self.constants, batch, self.keys, self.numbers, *rest)
        if self.step is None:
            self.step = self._choose(own) if self.form is None else self._trace(self.form).lower().compile()
            print(f"{self.n} runs by {self.form}", file=sys.stderr, flush=True)
        self.state, measured = self.step(self.state, *own)
        fetched = functools.cache(lambda: jax.device_get(measured))
        of_one = lambda i: {name: (total[i], count[i]) for name, (total, count) in fetched().items()}
        return {i: partial(of_one, i) for i in asked}

    def _choose(self, own):
        """The step in the form of which a few dispatches were faster; which it was is kept for the next time."""
        steps = {form: self._trace(form).lower().compile() for form in FORMS}
        seconds = {form: timed(step, self.state, own) for form, step in steps.items()}
        self.form = min(FORMS, key=seconds.get)
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(self.kept, {"form": self.form, "seconds": seconds})
        return steps[self.form]

    def _evaluate(self, asked):
        role = next(iter(asked.values())).role
        variables = eval_variables(self.state, {})
        if any(request.variables is not None for request in asked.values()):
            own = {i: self.take(variables, i) if r.variables is None else r.variables for i, r in asked.items()}
            variables = self.stack(self._of_all(own))
        if self.eval_step is None:
            self.eval_step = make_eval_step(self.setup, self.form or "map")
        each = lambda *rows: self.eval_step(variables, self.constants, self.numbers, *rows)
        split = lambda tree: [jax.tree.map(lambda x: x[i], tree) for i in range(self.n)]
        found = accumulate(self.setup, role, each, split=split, stop=self.stop)
        return {i: found and found[i] for i in asked}


def _digest(setup, members):
    """Of all that decides which form is faster."""
    kinds = [device.device_kind for device in setup.mesh.devices.flat]
    text = json.dumps([likeness(members[0]), len(members), kinds, manifest.machine(), jax.__version__])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def timed(step, state, own, dispatches=4):
    """Seconds of the fastest dispatch but the first; fewer are made where they take long. The state is left alone."""
    state, best, until = jax.tree.map(jnp.copy, state), math.inf, None
    for _ in range(dispatches):
        began = time.monotonic()
        state, _ = jax.block_until_ready(step(state, *own))
        if until is not None:
            best = min(best, time.monotonic() - began)
            if time.monotonic() > until:
                break
        until = until or time.monotonic() + 5.0
    return best


def make_step(setup, form):
    """step(state, constants, batch, key, numbers, active, *count) -> (state, metrics), pure, for M members.

    Args of step: as of research.train_step.make_train_step, each but constants and count with a leading axis M, and
        numbers: {dotted path: float32[M]} that members differ in.
        active: bool[M]; the state of others stays as it is, and their metrics are anything.
    """

    def one(state, constants, batch, key, numbers, *count):
        settings = configs.as_mapping(setup.config, numbers)
        model, task = build(settings, setup.dataset)
        optimizer = make_optimizer(settings["optimizer"], configs.arguments("optimizer", settings), setup.times)
        update = make_update(model, task, optimizer, settings, axis=None)
        return (partial(run_steps, update) if count else update)(state, constants, batch, key, *count)

    def by_vmap(state, constants, batch, key, numbers, active, *count):
        axes = (0, None, 0, 0, 0, *(None for _ in count))
        new, metrics = jax.vmap(one, axes)(state, constants, batch, key, numbers, *count)
        choose = lambda new, old: jnp.where(active.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        return jax.tree.map(choose, new, state), metrics

    def by_map(state, constants, batch, key, numbers, active, *count):
        def turn(member):
            state, batch, key, numbers, active = member
            go = lambda: one(state, constants, batch, key, numbers, *count)
            none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(go)[1])
            return lax.cond(active, go, lambda: (state, none))

        return lax.map(turn, (state, batch, key, numbers, active))

    return traced_for(setup.mesh, by_vmap if form == "vmap" else by_map)


def make_eval_step(setup, form):
    """evaluate(variables, constants, numbers, batch, examples) -> sums {name: (sum[M], count[M])}, arrays [M, B, ...].

    As research.train_step.make_eval_step's; batch and examples are the same for all members.
    """
    whole, cut = sharding.replicated(setup.mesh), sharding.split(setup.mesh)

    def evaluate(variables, constants, numbers, batch, examples):
        def one(variables, numbers):
            model, task = build(configs.as_mapping(setup.config, numbers), setup.dataset)
            return task.evaluate(model, {**variables, **constants}, batch, eval_keys(examples))

        if form == "vmap":
            sums, arrays = jax.vmap(one)(variables, numbers)
        else:
            sums, arrays = lax.map(lambda member: one(*member), (variables, numbers))
        return lax.psum(sums, sharding.AXIS), arrays

    rows = PartitionSpec(None, sharding.AXIS)
    specs = {"in_specs": (*[whole.spec] * 3, cut.spec, cut.spec), "out_specs": (whole.spec, rows)}
    function = jax.shard_map(evaluate, mesh=setup.mesh, check_vma=False, **specs)
    compiled = jax.jit(traced_for(setup.mesh, function), out_shardings=whole)
    return lambda variables, constants, numbers, *batch: compiled(
        variables, constants, numbers, *sharding.place(batch, cut)
    )
