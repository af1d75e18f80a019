"""Shows a training batch of a config as read, and as the step augments it: images as a PNG, text as lines.

python -m experiments.show_data --config=configs/cifar10_resnet.py --output=batch.png
python -m experiments.show_data --config=configs/addition_gru.py --examples=4
"""

import pathlib

from experiments import command
from research.errors import UserError
from research.setup import show_data


def make_parser():
    parser = command.parser(__doc__, config=True, workdir="a run folder, in place of --config")
    parser.add_argument("--output", default="batch.png", metavar="FILE", help="the picture; batch.png if not given")
    parser.add_argument("--examples", type=int, default=32, metavar="N", help="how many of the batch; 32")
    parser.add_argument("--step", type=int, default=0, metavar="N", help="the batch of which step; 0")
    return parser


def main(arguments, overrides):
    if arguments.examples < 1 or not 0 <= arguments.step < 2**31:
        raise UserError(2, "--examples: at least 1; --step: from 0 to 2147483647, what an int32 holds")
    config, _, _ = command.load_config(arguments, overrides)
    command.check_output(arguments.output, "--output", ".png")
    output = pathlib.Path(arguments.output)
    captions = show_data(config, output, arguments.examples, arguments.step)
    print("\n".join(captions))
    if output.exists():
        print(f"{output}: left as read, right as augmented")


if __name__ == "__main__":
    command.run(make_parser, main)
