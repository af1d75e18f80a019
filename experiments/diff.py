"""What differs between two runs: in config, code, versions, machine, data and results.

python -m experiments.diff runs/digits_cnn runs/mnist_cnn
"""

from experiments import command
from research.studies import difference
from research.studies.sweep import aligned


def make_parser():
    parser = command.parser(__doc__)
    for name in ("run", "other"):
        parser.add_argument(name, metavar="RUN", nargs="?", help="a run folder")
    return parser


def main(arguments, overrides):
    command.no_overrides(overrides)
    folders = [command.required(folder, "RUN RUN") for folder in (arguments.run, arguments.other)]
    found = difference.differences(*map(difference.read, folders))
    print("\n".join(aligned(difference.as_rows(found, folders))), flush=True)


if __name__ == "__main__":
    command.run(make_parser, main)
