"""Evaluates a run's best checkpoint (the newest, before any evaluation) on a split, each example counted once.

python -m experiments.evaluate --workdir=runs/digits_cnn --split=test
python -m experiments.evaluate --workdir=runs/digits_cnn --split='train[:100]' --output=metrics.json
python -m experiments.evaluate --workdir=hf:mine/sst2_bert --config.data.name=glue/sst2 --split=validation
"""

import pathlib

from experiments import command
from research import runs
from research.evaluation import evaluate
from research.setup import prepare_evaluation


def make_parser():
    parser = command.parser(__doc__, workdir="the run folder, or hf:FOLDER_OR_NAME")
    parser.add_argument(
        "--split", default="validation", help="train, validation or test as the run has them, or a split string"
    )
    parser.add_argument("--output", metavar="FILE", help="write the metrics there as JSON, unrounded")
    return parser


def main(arguments, overrides):
    command.check_output(arguments.output, "--output")
    run = command.load_run(arguments.workdir, overrides, needs_data=True)
    setup = prepare_evaluation(run.config, arguments.split, run.tokenizer)
    runs.check_data(run.folder, setup.dataset, [setup.splits[arguments.split].text])
    metrics = evaluate(setup, run.variables, arguments.split, step=run.step)
    print(f"weights of {run.folder}" if run.step is None else f"checkpoint of step {run.step}")
    for name, value in metrics.items():
        print(f"{arguments.split} {name} {value:.4f}")
    if arguments.output:
        runs.write_json(
            pathlib.Path(arguments.output), {"split": arguments.split, "step": run.step, "metrics": metrics}
        )


if __name__ == "__main__":
    command.run(make_parser, main)
