"""Measured results: from run folders to results/runs.json, and from results/ to the tables in README and configs.

    python -m research.studies.results runs/mnist_cnn_0 runs/mnist_cnn_1 runs/mnist_cnn_2
    python -m research.studies.results       # writes the tables again from what is kept

Runs of one config file and size that differ in their seed alone are one row; `config+name` is a run of that config
with the overrides named in VARIANTS. The tables of speed are made from results/speed_*.json.
"""

import json
import pathlib
import re
import sys

import numpy as np

from research.errors import UserError
from research.studies import gather
from research.studies.statistics import summary
from research.studies.tables import Cell, Table, clock, factor_of, figure, markdown, seeds, title

ROOT = pathlib.Path(__file__).parents[2]
KEPT = ROOT / "results" / "runs.json"
METRICS = {  # config: what is shown of it, of the test where there is one; accuracy of the others
    "addition_gru": ["exact_match"],
    "multi30k_gru": ["bleu"],
    "shakespeare_gpt": ["loss"],
    "stdlib_gpt": ["bits_per_byte"],
    "wikitext2_lstm": ["perplexity", "bits_per_byte"],
    "wikitext_gpt": ["perplexity", "bits_per_byte"],
}
NO_TEST = ("shakespeare_gpt",)
NOTES = {
    ("wikitext2_lstm", "cpu"): " (none of this size is published)",
    ("shakespeare_gpt", "cpu"): " (1.88 published, with learned positions)",
    ("shakespeare_gpt+learned", "cpu"): " (1.88 published)",
}
VARIANTS = [  # config, path, value, and the name of the row of its own that it makes
    ("multi30k_gru", "data.reverse", True, "en_de"),
    ("shakespeare_gpt", "model.positions", "learned", "learned"),
    ("newsgroups_gpt", "init_from", "runs/wikitext_gpt", "pretrained"),
    ("newsgroups_gpt", "data.remove", ("headers", "footers", "quotes"), "bare"),
]


def metrics_of(config):
    """The metrics that are shown of a config, as test/accuracy."""
    stem = config.partition("+")[0]
    return [f"{'validation' if stem in NO_TEST else 'test'}/{name}" for name in METRICS.get(stem, ["accuracy"])]


def keep(folders, kept):
    """`kept`, {"config:size": runs}, with the runs of some folders in place of those of the same rows.

    Raises:
        UserError: 2, for a run that is not finished, and for runs of a row that are no group.
    """
    found, left = gather.groups(gather.read(folders) if folders else [])
    if failed := [*left, *(record for group in found for record in group.failed)]:
        raise UserError(2, "; ".join(f"{record.folder}: {record.status}: {record.reason}" for record in failed))
    added = {}
    for group in found:
        first = group.records[0]
        name = stem = pathlib.Path(first.file).stem
        for of, path, value, variant in VARIANTS:
            if stem == of and first.config.get(path) == value:
                name = f"{name}+{variant}"
        key = f"{name}:{first.size}"
        if key in added:
            raise UserError(2, f"{key}: the runs differ in more than their seed")
        added[key] = [_kept(record, metrics_of(name)[0].partition("/")[0]) for record in group.records]
    return kept | added


def _kept(record, split):
    start = record.starts[-1]
    return {
        "seed": record.seed,
        "metrics": record.result["metrics"][split],
        "seconds": record.result["seconds"],
        "parameters": record.result["parameters"],
        "versions": start["versions"],
        "hardware": gather.hardware(start),
    }


def rows(kept):
    """One row a group: name, size, hardware, time, a figure a metric with its spread (n - 1), seeds, parameters."""
    for key, group in sorted(kept.items()):
        name, size = key.split(":")
        figures = [_figure(group, metric) for metric in metrics_of(name)]
        figures[0] += NOTES.get((name, size), "")
        yield name, size, group[0]["hardware"], _clock(group), figures, seeds(len(group)), group[0]["parameters"]


def _figure(group, metric):
    values = [run["metrics"][metric.partition("/")[2]] for run in group]
    return figure(summary(values), "std", factor_of(metric))


def _clock(group):
    return clock(np.mean([run["seconds"] for run in group]))


def _table(lines):
    """A table of plain words."""
    head, *body = lines
    return markdown(Table(list(head), [[Cell(word) for word in row] for row in body], [], len(head)))


def results_table(kept):
    yield "config", "size", "parameters", "mean ± std", "seeds", "time a run", "hardware"
    for name, size, machine, time, figures, n, parameters in rows(kept):
        reached = "; ".join(f"{title(metric)} {found}" for metric, found in zip(metrics_of(name), figures))
        yield name.replace("+", ", "), size, f"{parameters:,}", reached, n, time, machine


def speed_beside(what):
    """Makes the rows of a table of sides, one a machine; `what` names the workloads and their units."""

    def table(found):
        rows = [(name, machine, row) for name, machines in found.items() for machine, row in machines.items()]
        peers = list(dict.fromkeys(side for *_, row in rows for side in row["sides"] if side != "ours"))
        yield "work", "ours, at best", *(f"over {PEERS[side]}" for side in peers), "machine, date"
        for name, machine, row in rows:
            words, unit = what[name]
            best = max(row["sides"]["ours"]["per_second"])
            beside = [_beside(row, side) if side in row["sides"] else "-" for side in peers]
            yield words, f"{best:,.0f} {unit}", *beside, f"{machine}, {row['date']}"

    return table


def ratios(row, side):
    """Ours over a side in a row of benchmarks/: by the best rounds, and by the medians.

    Other work on the machine only ever slows a round, so that the best ones are those that it disturbed least.
    """
    ours, theirs = (row["sides"][name]["per_second"] for name in ("ours", side))
    return max(ours) / max(theirs), np.median(ours) / np.median(theirs)


def disturbed(row, side):
    """Whether the two ratios are too far apart to be of the same work on a quiet machine."""
    best, median = ratios(row, side)
    return max(best, median) > 1.3 * min(best, median)


def _beside(row, side):
    """Both ratios, and the range of those of single rounds."""
    ours, theirs = (row["sides"][name]["per_second"] for name in ("ours", side))
    (best, median), word = ratios(row, side), ", disturbed" if disturbed(row, side) else ""
    return f"{best:.2f}, medians {median:.2f} ({min(ours) / max(theirs):.2f} to {max(ours) / min(theirs):.2f}){word}"


PEERS = {
    "torch": "PyTorch eager",
    "torch_channels_last": "PyTorch channels_last",
    "torch_compiled": "torch.compile",
    "keras": "Keras on TensorFlow",
    "gensim": "gensim, 2 workers",
    "transformers": "transformers",
}
TABLES = {  # the file in results/, and what its table is between in README
    "speed_images.json": (
        "speed",
        speed_beside(
            {
                f"{name}_{batch}": (f"{name}, batch {batch}", "examples/s")
                for name, batches in (("mnist", (64, 256)), ("cifar10", (32, 256)))
                for batch in batches
            }
        ),
    ),
    "speed_recurrent.json": (
        "speed recurrent",
        speed_beside(
            {
                "gru": ("training, no attention", "target tokens/s"),
                "gru_additive": ("training, additive attention", "target tokens/s"),
                "gru_additive_fed": ("training, additive attention, input feeding", "target tokens/s"),
                "greedy": ("greedy decoding", "sentences/s"),
                "beam_4": ("beam search, beam 4", "sentences/s"),
            }
        ),
    ),
    "speed_word_vectors.json": (
        "speed word vectors",
        speed_beside(
            {
                "skipgram_1e-3": ("skip-gram, subsampling at 1e-3", "words/s"),
                "skipgram_1e-4": ("skip-gram, subsampling at 1e-4", "words/s"),
            }
        ),
    ),
    "speed_transformers.json": (
        "speed transformers",
        speed_beside(
            {
                "gpt_4x128": ("GPT 4 x 128, float32", "tokens/s"),
                "gpt_6x384": ("GPT 6 x 384, float32", "tokens/s"),
                "gpt_4x128_bfloat16": ("GPT 4 x 128, bfloat16", "tokens/s"),
                "gpt_6x384_bfloat16": ("GPT 6 x 384, bfloat16", "tokens/s"),
            }
        ),
    ),
    "speed_generation.json": (
        "speed generation",
        speed_beside({"text_1": ("one text", "tokens/s"), "text_8": ("eight texts at once", "tokens/s")}),
    ),
    "speed_sweeps.json": ("speed sweeps", lambda found: sweeps(found)),
    "newsgroups.json": ("newsgroups", lambda found: newsgroups(found)),
    "similarity.json": ("similarity", lambda found: similarity(found)),
}


SWEEPS = {"addition_gru": "addition_gru:tiny", "digits_mlp": "digits_cnn:cpu, an mlp", "digits_cnn": "digits_cnn:cpu"}


def sweeps(found):
    """Rows of the table of benchmarks/sweeps.py: 16 trials an hour at the median of its rounds."""
    yield "16 seeds of", "one after the other", "--jobs=2", "--vectorize=16", "beyond training", "machine, date"
    for name, machines in found.items():
        for machine, row in machines.items():
            seconds = {mode: kept["seconds"] for mode, kept in row["modes"].items()}
            one = np.median(seconds["one"])
            beside = [
                f"{one / np.median(seconds[mode]):.2f} ({min(seconds['one']) / max(seconds[mode]):.2f} to "
                f"{max(seconds['one']) / min(seconds[mode]):.2f}) times that"
                for mode in ("jobs", "together")
            ]
            beside[1] += f", by {row['modes']['together']['form']}"
            beyond = np.median(row["modes"]["one"]["beyond"])
            yield (
                SWEEPS[name], f"{16 * 3600 / one:,.0f} trials an hour", *beside, f"{beyond:.1f} s in all",
                f"{machine}, {row['date']}",
            )  # fmt: skip


def newsgroups(found):
    """Rows of the table that has a linear model of benchmarks/newsgroups.py beside our runs."""
    yield "model", "of a message", "test accuracy, %", "seeds", "time a run"
    rows = [(*side.split(", ", 1), group) for side, group in found["sides"].items()]
    for key, group in sorted(json.loads(KEPT.read_text()).items()):
        (config, *variants), size = key.partition(":")[0].split("+"), key.partition(":")[2]
        if config == "newsgroups_gpt":
            start = "wikitext_gpt's parameters" if "pretrained" in variants else "random parameters"
            part = "no headers, footers, quotes" if "bare" in variants else "all"
            rows.append((f"{config}:{size} from {start}", part, group))
    for model, part, group in sorted(rows, key=lambda row: row[1]):
        yield model, part, _figure(group, "test/accuracy"), seeds(len(group)), _clock(group)


SETS = {"wordsim353": "WordSim-353", "simlex999": "SimLex-999"}


def similarity(found):
    """Rows of the table of benchmarks/similarity.py."""
    yield "vectors", "seeds", "time a run", *(f"Spearman on {name}" for name in SETS.values())
    for side, runs in found["sides"].items():
        values = [[run[name] for run in runs] for name in SETS]
        yield side, seeds(len(runs)), _clock(runs), *(figure(summary(own), "std") for own in values)


def similarity_header(found, tasks):
    """The rows of some tasks for the header of a config."""
    (*_, first, second), *sides = similarity(found)
    yield f"size   hardware                 time   {first}, {second.removeprefix('Spearman on ')}: mean ± std (seeds)"
    for side, n, time, *values in sides:
        if side.endswith(tasks):
            yield f"cpu    {found['machine']:<22} {time:>6}   {' / '.join(values)} ({n})  {side}"


def neighbours_header(found):
    """Whose neighbours are whose."""
    yield ""
    yield "Nearest of ten words that were chosen before any was looked at (first seed):"
    for word, near in found["neighbours"].items():
        yield f"{word:<9} {', '.join(near)}"


def headers(kept):
    """{config: lines at the end of its docstring}."""
    found = {}
    for name, size, machine, time, figures, n, _ in rows(kept):
        config, _, variant = name.partition("+")
        head = f"size   hardware                 time   {' / '.join(map(title, metrics_of(name)))}: mean ± std (seeds)"
        variant = f"  {variant}" if variant else ""
        lines = found.setdefault(config, [head])
        lines.append(f"{size:<6} {machine:<22} {time:>6}   {' / '.join(figures)} ({n}){variant}")
    path = ROOT / "results" / "similarity.json"
    if path.is_file():
        beside = json.loads(path.read_text())
        found["text_glove"] = list(similarity_header(beside, "glove"))
        found["text_word2vec"] = [*similarity_header(beside, ("skipgram", "cbow")), *neighbours_header(beside)]
    return found


def derived():
    """{path: its text} of README and the configs, with every table and header made again from results/."""
    kept = json.loads(KEPT.read_text())
    readme = ROOT / "README.md"
    text = _between(readme.read_text(), "results", _table(results_table(kept)))
    for file, (name, rows_of) in TABLES.items():
        if (ROOT / "results" / file).is_file():
            text = _between(text, name, _table(rows_of(json.loads((ROOT / "results" / file).read_text()))))
    made = {readme: text}
    for config, lines in headers(kept).items():
        path = ROOT / "configs" / f"{config}.py"
        docstring, quotes, code = path.read_text()[3:].partition('"""')
        docstring = re.sub(r"\n*size   hardware.*", "", docstring, flags=re.S).rstrip()
        made[path] = '"""' + docstring + "\n\n" + "\n".join(lines) + "\n" + quotes + code
    return made


def _between(text, name, lines):
    """Replaces what stands between <!-- name --> and <!-- end name -->."""
    marks = rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)"
    return re.sub(marks, lambda m: m[1] + "\n".join(lines) + "\n" + m[2], text, flags=re.S)


def main(folders):
    if folders:
        kept = keep(folders, json.loads(KEPT.read_text()) if KEPT.is_file() else {})
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    for path, text in derived().items():
        path.write_text(text)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
