"""Trains a config in a run folder, then evaluates its best checkpoint on the test split.

    python -m experiments.train --config=configs/digits_cnn.py --workdir=runs/digits_cnn
    python -m experiments.train --config=configs/mnist_cnn.py:cpu --config.optimizer.learning_rate=3e-4

The same command again resumes an unfinished run, and prints the result of a finished one. Ctrl-C saves the state and
stops. The result goes to stdout and progress to stderr. The run folder has a copy of stderr in log.txt, the metrics in
metrics.jsonl, and TensorBoard's files. A closed terminal does not end the run.
"""

import pathlib

from experiments import command
from research import loop


def make_parser():
    return command.parser(__doc__, config=True, workdir="the run folder; runs/<config>[_<size>] if not given")


def main(arguments, overrides):
    config, file, size = command.load_config(arguments, overrides)
    name = pathlib.Path(file).stem + ("" if size == "base" else f"_{size}")
    workdir = arguments.workdir or str(pathlib.Path("runs") / name)
    result = loop.train(config, workdir, file=file, size=size)
    for split, metrics in result["metrics"].items():
        for name, value in metrics.items():
            print(f"{split} {name} {value:.4f}")
    print(f"best step {result['best_step']} of {result['step']}, {result['seconds']:.1f} s")
    print(f"run folder {workdir}")


if __name__ == "__main__":
    command.run(make_parser, main)
