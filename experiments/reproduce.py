"""Claims: what is published of the experiments in configs/, beside what our runs reached.

    python -m experiments.reproduce
    python -m experiments.reproduce mnist_cnn --size=cpu

Without a name, the table of all claims, from results/. With one, its runs that are missing in --workdir are trained,
one for each seed, together where they can be; the claim is tested, its runs are kept in results/<claim>.json, and a
report of them is written. The same command again goes on. --check makes the tables in README and in the headers of
configs again, and names the lines that differ; --write writes them. A claim stands in claims() of its config file:
research/studies/claims.py says how.
"""

import pathlib
import sys

from experiments import command
from research import runs
from research.errors import UserError
from research.studies import claims, gather, report, results, schedule, tables, watch, workers


def make_parser():
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("claim", metavar="CLAIM", nargs="*", help="names of claims, as the table has them")
    add("--size", metavar="SIZE", help="which of a claim's sizes; needed where there are several")
    add("--jobs", metavar="N", type=int, default=1, help="processes at a time")
    add("--workdir", metavar="FOLDER", default="runs/claims", help="a claim's runs are in a folder in it")
    add("--output", metavar="DIR", default="reports", help="a claim's report is in a folder in it")
    add("--check", action="store_true", help="whether README and configs say what results/ says; else exit 1")
    add("--write", action="store_true", help="have them say it")
    return parser


def main(arguments, overrides):
    command.no_overrides(overrides)
    if arguments.jobs < 1:
        raise UserError(2, f"--jobs: {arguments.jobs} processes; at least 1 is needed")
    if sum((arguments.check, arguments.write, bool(arguments.claim))) > 1:
        raise UserError(2, "--check, --write, CLAIM: give one of them")
    if arguments.check:
        return check()
    if arguments.write:
        for path, text in results.derived(pathlib.Path()).items():
            runs.write_text(path, text)
        return 0
    known = claims.read()
    asked = [claims.named(known, name, arguments.size) for name in arguments.claim]
    if arguments.size is not None and not asked:
        known = [claim for claim in known if claim.size == arguments.size]
        if not known:
            raise UserError(2, f"--size: no claim is of size {arguments.size}")
    for claim in asked:
        reproduce(claim, arguments)
    print("\n".join(tables.as_lines(claims.table(list(map(claims.judge, asked or known))))))
    for claim in asked:
        print(f"report {pathlib.Path(arguments.output) / claim.stem}/report.html")
    return 0


def reproduce(claim, arguments):
    """Trains what is missing of a claim's runs, keeps what they reached, and writes a report of them."""
    folder, output = (pathlib.Path(place) / claim.stem for place in (arguments.workdir, arguments.output))
    plan = claims.plan(claim, folder)
    schedule.check_folder(plan)
    report.check_output(output)
    runs.check_writable(pathlib.Path(claims.FOLDER))
    if claim.gpu and not workers.shares(1)[0].gpus:
        print(f"{claim.name}, {claim.size}: wants a GPU, and none is here", file=sys.stderr)
    left = not all(schedule.is_over(folder / trial.name) for trial in plan.trials)
    code = train(claim, plan, arguments.jobs) if left else 0
    records = gather.read([folder])
    for record in records:
        if record.status != "finished":
            raise UserError(code or 6, f"{record.folder}: {record.status}: {record.reason}; the claim is not tested")
    made = report.make([folder], claim.metrics)
    claims.keep(claim, records)
    words = claims.words(claims.judge(claim))
    report.write(made._replace(notes=[f"Claim: {words}.", *made.notes]), output)


def train(claim, plan, jobs):
    """The exit code of a run that failed, 0 where none did."""
    with workers.crew(command.process_settings) as hire:
        plan = schedule.check(plan, hire(workers.shares(1)[0]), (claim.metric, *claim.also))
        with watch.View(plan) as view:
            return schedule.run(plan, schedule.jobs_of(plan, None, jobs), view, hire, processes=jobs)


def check():
    found = results.differing(pathlib.Path())
    print("\n".join(found or ["README and the configs' headers say what results/ says"]))
    if found:
        print(f"error: {len(found)} differ; python -m experiments.reproduce --write makes them again", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    command.run(make_parser, main)
