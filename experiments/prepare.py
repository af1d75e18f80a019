"""Prepares data sets in TFDS's form, without TensorFlow.

    python -m experiments.prepare digits mnist
    python -m experiments.prepare multi30k glue/sst2 addition/2
    python -m experiments.prepare cifar10 --manual=FOLDER

Images: digits, mnist, fashion_mnist, cifar10. Text: multi30k, tiny_shakespeare, wikitext2, glue/sst2, and addition/D
for sums of numbers of D digits, D from 1 to 18; digits and sums need no download.

Archives come from the official place, or from FOLDER (as downloaded, or unpacked); each is checked against a pinned
sum. A download that broke off goes on where it stopped. The result goes to --data_dir, else TFDS_DATA_DIR, else
~/tensorflow_datasets.
"""

import sys
import time

from experiments import command
from research.data.prepare import prepare_by_name
from research.data.recipes import RECIPES
from research.errors import UserError


def make_parser():
    parser = command.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(sorted(RECIPES)))
    parser.add_argument("--manual", metavar="FOLDER", help="a folder that holds the archives or what they unpack to")
    parser.add_argument("--data_dir", metavar="FOLDER", help="where to prepare into")
    return parser


def main(arguments, overrides):
    command.no_overrides(overrides)
    if not arguments.names:
        raise UserError(2, f"name at least one data set: {', '.join(sorted(RECIPES))}")
    shown = 0.0

    def progress(text):
        nonlocal shown
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - shown > 2:
            shown = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    for name in arguments.names:
        folder = prepare_by_name(name, arguments.data_dir, arguments.manual, progress)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        print(f"{name} {folder}")


if __name__ == "__main__":
    command.run(make_parser, main)
