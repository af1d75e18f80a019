"""Tables, figures and a page of runs, with their spread over seeds, from the folders of runs and sweeps.

    python -m experiments.report runs/digits_cnn --output=reports/one
    python -m experiments.report runs/digits_cnn --output=reports/one --metrics=test/accuracy --spread=std --test=rank

Runs that differ in their seed alone are a group. DIR gets results and comparisons as .md, .tex (booktabs) and .csv, all
figures as .png and .pdf, report.json with every digit, and report.html with all of it, where each number leads to its
runs. Runs that failed or are not finished are named, and are in no number. stdout is the table.
"""

from experiments import command
from research.errors import UserError
from research.studies import report, tables


def make_parser():
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("folders", metavar="FOLDER", nargs="*", help="run folders, folders of sweeps, or folders that hold some")
    add("--output", metavar="DIR", help="where the report goes: a new folder, or that of an earlier report")
    add("--metrics", metavar="NAMES", default="", help="as test/accuracy,test/loss; all of the test, if not given; "
        "figures show the first")  # fmt: skip
    add("--spread", default="t", help="t: 95 %% interval of the mean by Student's t; bootstrap: by BCa; std: n - 1")
    add("--test", default="t", help="how the best is compared with the others: t, permutation or rank (Wilcoxon)")
    add("--paired", action="store_true", help="compare the runs of the same seed with each other")
    return parser


def main(arguments, overrides):
    command.no_overrides(overrides)
    output = command.required(arguments.output, "--output")
    if not arguments.folders:
        raise UserError(2, "FOLDER: needed, as runs/digits_cnn")
    own = {"spread": arguments.spread, "test": arguments.test}
    for flag, known in (("spread", tables.SPREADS), ("test", dict.fromkeys(name for name, _ in report.TESTS))):
        if own[flag] not in known:
            raise UserError(2, f"--{flag}: {own[flag]!r} is unknown; known are {', '.join(known)}")
    names = [name for name in arguments.metrics.split(",") if name]
    made = report.make(arguments.folders, names, paired=arguments.paired, **own)
    report.write(made, output)
    print("\n".join([*tables.as_lines(report.results_table(made)), f"report {output}/report.html"]), flush=True)


if __name__ == "__main__":
    command.run(make_parser, main)
