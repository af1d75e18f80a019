"""Learning curves of runs, in one figure.

    python -m experiments.plot runs/digits_cnn --output=curves.png
    python -m experiments.plot runs/digits_cnn runs/mnist_cnn --metric=train/accuracy --output=curves.pdf

Runs need not be finished. For means over seeds, take experiments.report.
"""

import pathlib
import sys

from experiments import command
from research import pictures
from research.errors import UserError, nearest
from research.studies import figures, gather, illustrate


def make_parser():
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("folders", metavar="RUN", nargs="*", help="run folders, or folders that hold some")
    add("--output", metavar="FILE", help="the picture, a .png or .pdf")
    add("--metric", metavar="NAME", help="as train/loss; if not given, that by which checkpoints are chosen")
    return parser


def main(arguments, overrides):
    command.no_overrides(overrides)
    output = pathlib.Path(command.required(arguments.output, "--output"))
    kind = output.suffix.removeprefix(".")
    if kind not in figures.FORMATS:
        raise UserError(2, f"--output: {output} is neither .png nor .pdf")
    command.check_output(output, "--output")
    if not arguments.folders:
        raise UserError(2, "RUN: needed, as runs/digits_cnn")
    records = [record for record in gather.readable(gather.read(arguments.folders)) if record.config]
    metric = arguments.metric or (gather.judged_by(records[0])[0] if records else "")
    figure, without = illustrate.curves(records, metric)
    if figure is None:
        known = list(dict.fromkeys(name for record in records for name in illustrate.metrics_of(record)))
        raise UserError(
            2, f"--metric: no run has {metric}; there are {', '.join(known) or 'none'}{nearest(metric, known)}"
        )
    for folder in without:
        print(f"{folder}: has no {metric}, and is not drawn", file=sys.stderr)
    pictures.save(figure, output, kind)
    print(output, flush=True)


if __name__ == "__main__":
    command.run(make_parser, main)
