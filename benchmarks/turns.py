"""Sides of a comparison as processes that work in turns, the others waiting: what each does in a second."""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent


def compare(doc, module, sides, workloads, kept, unit):
    """A benchmark's main program.

    Args:
        doc: its help.
        module: its name, by which its workers start it.
        sides: {side: make(workload) -> work(seconds) -> things done, seconds, seconds waiting for data}; "ours" first.
        workloads: their names.
        kept: file in results/ that gets {workload: {side: {"per_second": [...], "wait": [...], ...}}}.
        unit: what is counted, as examples.
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
    path = ROOT / "results" / kept
    results = json.loads(path.read_text()) if path.is_file() else {}
    for workload in arguments.workloads.split(","):
        results[workload] = found = _measure(module, sides, workload, arguments.rounds, arguments.seconds)
        median = {side: statistics.median(found[side]["per_second"]) for side in sides}
        for side in sides:
            rates = found[side]["per_second"]
            print(
                f"{workload:16} {side:20} {median[side]:9.0f} {unit}/s ({min(rates):.0f} to {max(rates):.0f})"
                f"  ours over it {median['ours'] / median[side]:.2f}  start {found[side]['start_seconds']:.1f} s"
                f"  peak {found[side]['peak_bytes'] / 1e6:.0f} MB"
                f"  data {100 * statistics.median(found[side]['wait']):.1f} %",
                flush=True,
            )
    path.write_text(json.dumps(results, indent=1) + "\n")


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
            batch = next(batches) if k == 1 else stack([next(batches) for _ in range(k)], k)
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
