"""Trains a config at every point of a sweep, each in a run folder of its own below --workdir.

    python -m experiments.sweep --config=configs/digits_cnn.py --axis=seed=0:5 --vectorize=auto --workdir=runs/seeds
    python -m experiments.sweep --config=configs/digits_cnn.py --sweep=model --axis=seed=0:2 --jobs=2 --workdir=runs/two
    python -m experiments.sweep --config=configs/digits_cnn.py --sweep=random --workdir=runs/random --dry_run
    python -m experiments.sweep --config=configs/digits_cnn.py --search=tpe --trials=9 --prune=median --workdir=runs/t

Axes and named sweeps, sweep_<name>() of the config file, are combined to every point of each with every point of the
others. All points are checked before anything runs. The same command again goes on: each trial runs once, an unfinished
one from its checkpoint, one that failed is tried again, and more points than before are taken up. Ctrl-C saves the
states and stops. stdout is the table of trials; what a trial prints is in the folder's logs/.

With --search Optuna asks for the points, of search_space() of the config file, and --prune ends bad ones early by their
evaluations. Machines that share a --storage share the points of the same command: each is trained once.

With --vectorize, trials that differ in numbers alone (seed, learning rate, decay, momentum, betas, dropout, label
smoothing, ema) are one program, and each has the folder that it would have had alone, its numbers the same to rounding.
"""

import math
import pathlib
import re
import sys

from experiments import command
from research import config as configs
from research.errors import UserError
from research.studies import cluster, population, schedule, sweep, watch, workers

SHOWN = 20  # points of a plan that are printed before it runs


def make_parser():
    parser = command.parser(__doc__, config=True, workdir="the sweep's folder; alone, it goes on with what is there")
    add = parser.add_argument
    add("--sweep", metavar="NAMES", default="", help="sweeps of the config file, by their names: model,cell")
    add(
        "--axis", metavar="PATH=VALUES", action="append", default=[], help="seed=0:5 (a range) or data.batch_size=32,64"
    )
    add(
        "--jobs", metavar="N", type=int, default=1, help="processes at a time; cores and GPUs are shared out among them"
    )
    add(
        "--vectorize",
        metavar="N",
        default="1",
        help="trials that differ in numbers alone run N at once; auto: up to 16",
    )
    add("--search", metavar="NAME", help="points of search_space() of the config file: grid, random, tpe, cmaes, qmc")
    add("--trials", metavar="N", type=int, help="points of a search, over all machines; a whole grid, or 20")
    add("--prune", metavar="NAME", help="end bad trials of a search early: median, halving, hyperband")
    add("--storage", metavar="URL", help="Optuna's, for a search by several machines; else a file in --workdir")
    add("--trial_seconds", metavar="S", type=float, help="a trial that takes longer is stopped and has failed")
    add("--executor", metavar="slurm[:OPTION=VALUE]", help="submit an array instead, --jobs of its tasks at a time; "
        "options are submitit's, as timeout_min=240,slurm_partition=gpu")  # fmt: skip
    add("--dry_run", action="store_true", help="check and print the points, and run none")
    add("--yes", action="store_true", help=f"run more than {sweep.MANY:,} points")
    return parser


def main(arguments, overrides):
    folder = pathlib.Path(command.required(arguments.workdir, "--workdir"))
    if arguments.jobs < 1:
        raise UserError(2, f"--jobs: {arguments.jobs} processes; at least 1 is needed")
    if arguments.trial_seconds is not None and not arguments.trial_seconds > 0:
        raise UserError(2, f"--trial_seconds: {arguments.trial_seconds:g} is no time")
    if not re.fullmatch("auto|0*[1-9][0-9]*", arguments.vectorize):
        raise UserError(2, f"--vectorize: {arguments.vectorize!r} is neither auto nor a number of trials")
    most = None if arguments.vectorize == "auto" else int(arguments.vectorize)
    if arguments.executor:
        cluster.options(arguments.executor)
        if arguments.trial_seconds is not None:
            raise UserError(2, "--trial_seconds: Slurm stops tasks itself; give --executor=slurm:timeout_min=...")
    if arguments.search:
        return search_points(arguments, overrides, folder, most or population.MOST)
    for flag in ("trials", "prune", "storage"):
        if getattr(arguments, flag) is not None:
            raise UserError(2, f"--{flag}: of a search; give --search, as --search=tpe")
    plan, same = make_plan(arguments, overrides, folder)
    schedule.check_folder(plan)
    with workers.crew(command.process_settings) as hire:
        plan = schedule.check(plan, hire(workers.shares(1)[0]))
        steps = sum(trial.steps for trial in plan.trials)
        total = f"{len(plan.trials):,} trials, {steps:,} steps" + (f"; {same} same ones left out" if same else "")
        jobs = schedule.jobs_of(plan, most, arguments.jobs)
        sizes = sorted((len(job.trials) for job in jobs if len(job.trials) > 1), reverse=True)
        total += f"; together {', '.join(map(str, sizes))}" if sizes else ""
        lines = sweep.as_lines(plan.trials)
        if arguments.dry_run:
            print("\n".join([*lines, total]))
            return 0
        if arguments.executor:
            tasks = [(command.process_settings, plan, job) for job in jobs]
            return submit(arguments, plan, schedule.work, tasks)
        shown = lines if len(lines) <= SHOWN + 1 else [*lines[: SHOWN + 1], "..."]
        print("\n".join([*shown, total]), file=sys.stderr, flush=True)
        own = {"processes": arguments.jobs, "trial_seconds": arguments.trial_seconds}
        with watch.View(plan) as view:
            code = schedule.run(plan, jobs, view, hire, **own)
    print("\n".join(watch.results(plan)))
    return finish(plan, code)


def finish(plan, code):
    """Says where the trials are, and how many of them failed; returns the exit code."""
    print(f"sweep folder {plan.folder}", flush=True)
    if code:
        left = sum(not schedule.is_over(plan.folder / trial.name) for trial in plan.trials)
        more = "" if "search" in plan.asked else "; the same command tries them again"
        print(f"error: {left} of {len(plan.trials)} trials failed{more}", file=sys.stderr)
    return code


def search_points(arguments, overrides, folder, at_once):
    """Trains what Optuna asks for."""
    from research.studies import search, space  # a quarter of a second, which every worker of a sweep would spend, too

    if arguments.sweep or arguments.axis:
        raise UserError(2, "--search: gives the points itself; leave --sweep and --axis out")
    if arguments.trials is not None and arguments.trials < 1:
        raise UserError(2, f"--trials: {arguments.trials} points; at least 1 is needed")
    command.required(arguments.config, "--config")
    config, file, size = command.load_config(arguments, overrides)
    asked = space.read(configs.load_names(file), config, arguments.search, arguments.prune)
    for path in asked.space:
        if path in overrides:
            raise UserError(2, f"--config.{path}: given, and searched; leave it out")
    if arguments.executor:
        cluster.check_storage(arguments.storage)
    plan = schedule.Plan(folder, file, size, config, [], {"search": asked.as_json()})
    schedule.check_folder(plan)
    with workers.crew(command.process_settings) as hire:
        corners = plan._replace(trials=space.corners(plan, asked))
        metrics = [objective.metric for objective in asked.objectives if objective.split]
        checked = schedule.check(corners, hire(workers.shares(1)[0]), metrics)
        plan = plan._replace(examples=checked.examples)
        own = {"count": arguments.trials, "at_once": at_once, "storage": arguments.storage}
        found = search.Search(plan, asked, **own)
        lines = [*space.as_lines(asked), f"{found.count} points by {asked.sampler}, study {found.name}"]
        if arguments.dry_run:
            print("\n".join(lines))
            return 0
        if arguments.executor:
            flags = cluster.without(sys.argv[1:], ("--executor", "--jobs"))
            return submit(arguments, plan, cluster.again, [(flags,)] * arguments.jobs)
        print("\n".join(lines), file=sys.stderr, flush=True)
        own = {"processes": arguments.jobs, "trial_seconds": arguments.trial_seconds, "search": found}
        with watch.View(plan, total=found.count) as view:
            code = schedule.run(plan, [], view, hire, **own)
    print("\n".join([*watch.results(plan), *found.lines()]))
    return finish(plan, code)


def submit(arguments, plan, function, tasks):
    """Gives tasks to a cluster, and says which they are."""
    if tasks:
        own = cluster.options(arguments.executor)
        jobs = cluster.submit(plan, own, function, tasks, arguments.jobs)
        print(f"submitted: {', '.join(job.job_id for job in jobs)}")
    print(
        f"sweep folder {plan.folder}; without --executor the same command shows it, and does what is left", flush=True
    )
    return 0


def make_plan(arguments, overrides, folder):
    """The sweep that is asked for, and how many of its points are the same as others."""
    if arguments.config is None:
        plan = schedule.read_plan(folder)
        if plan is None:
            raise UserError(2, f"--config: needed, as --config=configs/digits_cnn.py; {folder} holds no sweep")
        if "search" in plan.asked:
            raise UserError(2, f"--search: {folder} holds a search; the command that began it goes on with it")
        if overrides or arguments.sweep or arguments.axis:
            raise UserError(2, "--config: needed beside --axis, --sweep or --config.PATH")
        return plan, 0
    config, file, size = command.load_config(arguments, overrides)
    names = [name for name in arguments.sweep.split(",") if name]
    limit = math.inf if arguments.yes else sweep.MANY
    points = sweep.points_of(configs.load_names(file), names, arguments.axis, overrides, limit)
    trials, same = sweep.trials_of(config, points, overrides)
    asked = {"sweep": names, "axis": arguments.axis}
    return schedule.Plan(folder, file, size, config, trials, asked), same


if __name__ == "__main__":
    command.run(make_parser, main)
