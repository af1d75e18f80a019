"""Prints a model's parameters: path, shape, dtype and count. Nothing is computed and no data are read but their shapes.

python -m experiments.summary --config=configs/cifar10_resnet.py
python -m experiments.summary --workdir=runs/digits_cnn
"""

from experiments import command
from research.setup import abstract_params, summary


def make_parser():
    return command.parser(__doc__, config=True, workdir="a run folder, in place of --config")


def main(arguments, overrides):
    config, _, _ = command.load_config(arguments, overrides)
    print("\n".join(summary(abstract_params(config))))


if __name__ == "__main__":
    command.run(make_parser, main)
