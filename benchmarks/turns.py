"""Sides of a comparison as processes that work in turns, the others waiting: what each does in a second."""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

from research.studies.results import disturbed, ratios

ROOT = pathlib.Path(__file__).parent.parent
TRIES = 3  # of a workload that other work on the machine disturbs


def compare(doc, module, sides, workloads, kept, unit, needs):
    """A benchmark's main program.

    Each row stands by itself: it keeps versions, date and all rounds, and is replaced by one of the same machine alone.

    Args:
        doc: its help.
        module: its name, by which its workers start it.
        sides: {side: make(workload) -> work(seconds) -> things done, seconds, seconds waiting for data}; "ours" first.
        workloads: their names.
        kept: file in results/ that gets {workload: {machine: row}}; a row is {"versions", "date", "sides": {side:
            {"per_second": [...], "wait": [...], "start_seconds": ..., "peak_bytes": ...}}}.
        unit: what is counted, as examples.
        needs: {side: the package that it wants}; a side whose package is not installed is left out, and said so.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each side; 9")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn; 1")
    parser.add_argument("--workloads", default=",".join(workloads), help="some of them, by comma")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        side, workload = arguments.serve.split(":")
        return _serve(sides[side](workload))
    from research import manifest  # not above: a peer's process has no JAX in it

    absent = {side: name for side, name in needs.items() if importlib.util.find_spec(name) is None}
    for side, name in absent.items():
        print(f"{side}: left out: {name} is not installed")
    path, here = ROOT / "results" / kept, [side for side in sides if side not in absent]
    for workload in arguments.workloads.split(","):
        for _ in range(TRIES):
            row = {
                "versions": {name: importlib.metadata.version(name) for name in ("jax", *(needs[s] for s in here[1:]))},
                "date": datetime.date.today().isoformat(),
                "gflops": manifest.matmul_gflops(),
                "sides": _measure(module, here, workload, arguments.rounds, arguments.seconds),
            }
            print("\n".join(lines(workload, row, unit)), flush=True)
            if not any(disturbed(row, side) for side in here):
                break
        results = json.loads(path.read_text()) if path.is_file() else {}
        results.setdefault(workload, {})[manifest.machine()] = row
        path.write_text(json.dumps(results, indent=1) + "\n")


def lines(workload, row, unit):
    for side, found in row["sides"].items():
        (best, median), rates = ratios(row, side), found["per_second"]
        yield (
            f"{workload:16} {side:20} {max(rates):9.0f} {unit}/s at best ({min(rates):.0f}, median "
            f"{statistics.median(rates):.0f})  ours over it {best:.2f} (medians {median:.2f})"
            f"{'  DISTURBED' if disturbed(row, side) else ''}  start {found['start_seconds']:.1f} s"
            f"  peak {found['peak_bytes'] / 1e6:.0f} MB  data {100 * statistics.median(found['wait']):.1f} %"
        )


def again(once, count):
    """work(seconds), as compare() wants it: once() does so many things, waits for no data, and is called in a loop."""

    def work(seconds):
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds or not done:
            once()
            done += count
        return done, time.perf_counter() - began, 0.0

    return work


def ours(name, overrides, count):
    """Our side, data and all: the step of a config over its own batches.

    Args:
        name: of the config.
        count: count(setup, batch) -> things done by a call of the step.
    Returns:
        work(seconds), as compare() wants it.
    """
    import jax

    from experiments.command import process_settings
    from research import config as configs
    from research import sharding
    from research.data.batches import stack, train_batches
    from research.randomness import run_key
    from research.setup import prepare, resolve
    from research.train_step import make_train_step

    process_settings()
    config, _, _ = configs.load_file(ROOT / "configs" / f"{name}.py")
    setup = prepare(*resolve(configs.override(config, overrides)))
    k, whole = setup.config.train.steps_per_call, sharding.replicated(setup.mesh)
    state = jax.jit(setup.init, out_shardings=whole)(run_key(0))
    step = make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)
    key = sharding.place(run_key(0), whole)
    batches = train_batches(setup.splits["train"], 0, setup.config.data.batch_size, 0, 10**9)

    def train(seconds):
        nonlocal state
        began, done, waited = time.perf_counter(), 0, 0.0
        while time.perf_counter() - began < seconds or not done:
            asked = time.perf_counter()
            batch = next(batches) if k == 1 else stack([next(batches) for _ in range(k)], k, setup.dataset.pad)
            waited += time.perf_counter() - asked
            state, metrics = step(state, {}, batch, key, *(() if k == 1 else (k,)))
            jax.block_until_ready(metrics)
            done += count(setup, batch)
        return done, time.perf_counter() - began, waited

    return train


def _serve(work):
    """A worker: works once, says so, then works on each line for the seconds that it names."""
    work(0)
    print("ready", flush=True)
    for line in sys.stdin:
        done, seconds, waited = work(float(line))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps([done / seconds, waited / seconds, peak]), flush=True)


def _measure(module, sides, workload, rounds, seconds):
    workers, found = {}, {}
    for side in sides:
        began = time.perf_counter()
        command = [sys.executable, "-m", module, f"--serve={side}:{workload}"]
        workers[side] = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if workers[side].stdout.readline() != "ready\n":
            sys.exit(f"{side}, {workload}: did not start")
        found[side] = {"per_second": [], "wait": [], "start_seconds": time.perf_counter() - began}
    for turn in range(rounds + 1):
        for side, worker in workers.items():
            worker.stdin.write(f"{seconds}\n")
            worker.stdin.flush()
            rate, wait, peak = json.loads(worker.stdout.readline())
            if turn:  # the first turn warms up
                found[side]["per_second"].append(rate)
                found[side]["wait"].append(wait)
                found[side]["peak_bytes"] = peak
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return found
