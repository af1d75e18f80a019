"""Training steps of the MNIST and CIFAR-10 networks beside PyTorch's, in one interleaved run.

    pip install -r requirements-bench.txt
    python -m benchmarks.images --rounds=9

Each side of each workload is a process of its own that trains in turns of a second, the others waiting; ratios are of
medians. Ours reads real data through the project's own pipeline; PyTorch has its batch in memory. Both compute in
float32 on all cores with their defaults: PyTorch eager with the fused optimizer, in its default layout and in
channels_last; ours with the settings named in WORKLOADS, which change no number beyond rounding. Writes
results/speed.json, from which `python -m results.tables` makes README's table.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
WORKLOADS = {  # name: config file, batch size, settings of ours
    "mnist_64": ("mnist_cnn", 64, {"train.steps_per_call": 8}),
    "mnist_256": ("mnist_cnn", 256, {"train.steps_per_call": 4, "train.microbatches": 8}),
    "cifar10_32": ("cifar10_cnn", 32, {"train.steps_per_call": 8}),
    "cifar10_256": ("cifar10_cnn", 256, {"train.steps_per_call": 4, "train.microbatches": 8}),
}
SIDES = ("ours", "torch", "torch_channels_last")


def ours(name, batch_size, overrides):
    """A function that trains for some seconds: -> examples, seconds, seconds waiting for data."""
    import jax
    import numpy as np

    from experiments.command import process_settings
    from research import config as configs
    from research import sharding
    from research.data.batches import train_batches
    from research.randomness import run_key
    from research.setup import prepare, resolve
    from research.train_step import make_train_step

    process_settings()
    config, _, _ = configs.load_file(ROOT / "configs" / f"{name}.py")
    setup = prepare(*resolve(configs.override(config, {"data.batch_size": batch_size, **overrides})))
    k, whole = setup.config.train.steps_per_call, sharding.replicated(setup.mesh)
    state = jax.jit(setup.init, out_shardings=whole)(run_key(0))
    step = make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)
    key = sharding.place(run_key(0), whole)
    batches = train_batches(setup.splits["train"], 0, batch_size, 0, 10**9)

    def train(seconds):
        nonlocal state
        began, examples, waited = time.perf_counter(), 0, 0.0
        while time.perf_counter() - began < seconds or not examples:
            asked = time.perf_counter()
            drawn = [next(batches) for _ in range(k)]
            batch = drawn[0] if k == 1 else {field: np.stack([b[field] for b in drawn]) for field in drawn[0]}
            waited += time.perf_counter() - asked
            state, metrics = step(state, batch, key, *(() if k == 1 else (k,)))
            jax.block_until_ready(metrics)
            examples += k * batch_size
        return examples, time.perf_counter() - began, waited

    return train


def torch(name, batch_size, channels_last):
    """The same network and optimizer in PyTorch eager, on one batch in memory."""
    import torch
    from torch import nn

    def block(*layers):
        return nn.Sequential(*[part for layer in layers for part in (layer if isinstance(layer, tuple) else (layer,))])

    conv = lambda i, o: (nn.Conv2d(i, o, 3), nn.ReLU())
    if name == "mnist_cnn":
        shape, body, flat = (
            (1, 28, 28),
            (conv(1, 32), nn.MaxPool2d(2), conv(32, 64), nn.MaxPool2d(2), conv(64, 64)),
            576,
        )
    else:
        shape, body, flat = (3, 32, 32), (conv(3, 32), nn.MaxPool2d(2), conv(32, 64), nn.MaxPool2d(2)), 2304
    model = block(*body, nn.Flatten(), nn.Linear(flat, 64), nn.ReLU(), nn.Linear(64, 10))
    images, labels = torch.rand(batch_size, *shape), torch.randint(0, 10, (batch_size,))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    parameters = model.parameters()
    adam = name == "mnist_cnn"
    optimizer = torch.optim.Adam(parameters, fused=True) if adam else torch.optim.SGD(parameters, lr=0.01, fused=True)

    def train(seconds):
        began, examples = time.perf_counter(), 0
        while time.perf_counter() - began < seconds or not examples:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            examples += batch_size
        return examples, time.perf_counter() - began, 0.0

    return train


def serve(side, workload):
    """A worker: trains one call, says so, then trains on each line for the seconds that it names."""
    name, batch_size, overrides = WORKLOADS[workload]
    train = ours(name, batch_size, overrides) if side == "ours" else torch(name, batch_size, side != "torch")
    train(0)
    print("ready", flush=True)
    for line in sys.stdin:
        examples, seconds, waited = train(float(line))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps([examples / seconds, waited / seconds, peak]), flush=True)


def measure(workload, rounds, seconds):
    """{side: {"examples_per_second": [...], "wait": [...], "peak_bytes", "start_seconds"}}"""
    workers, found = {}, {}
    for side in SIDES:
        began = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.images", f"--serve={side}:{workload}"]
        workers[side] = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if workers[side].stdout.readline() != "ready\n":
            sys.exit(f"{side}, {workload}: did not start")
        found[side] = {"examples_per_second": [], "wait": [], "start_seconds": time.perf_counter() - began}
    for turn in range(rounds + 1):
        for side, worker in workers.items():
            worker.stdin.write(f"{seconds}\n")
            worker.stdin.flush()
            rate, wait, peak = json.loads(worker.stdout.readline())
            if turn:  # the first turn warms up
                found[side]["examples_per_second"].append(rate)
                found[side]["wait"].append(wait)
                found[side]["peak_bytes"] = peak
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each side; 9")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn; 1")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="some of them, by comma")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(*arguments.serve.split(":"))
    kept = ROOT / "results" / "speed.json"
    results = json.loads(kept.read_text()) if kept.is_file() else {}
    for workload in arguments.workloads.split(","):
        results[workload] = found = measure(workload, arguments.rounds, arguments.seconds)
        median = {side: statistics.median(found[side]["examples_per_second"]) for side in SIDES}
        for side in SIDES:
            rates = found[side]["examples_per_second"]
            print(
                f"{workload:12} {side:20} {median[side]:7.0f} examples/s ({min(rates):.0f} to {max(rates):.0f})"
                f"  ours over it {median['ours'] / median[side]:.2f}  start {found[side]['start_seconds']:.1f} s"
                f"  peak {found[side]['peak_bytes'] / 1e6:.0f} MB"
                f"  data {100 * statistics.median(found[side]['wait']):.1f} %",
                flush=True,
            )
    kept.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
