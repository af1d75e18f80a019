"""Measured results: from run folders to results/runs.json, and from there to the tables in README and configs.

    python -m research.studies.tables runs/mnist_cnn_0 runs/mnist_cnn_1 runs/mnist_cnn_2
    python -m research.studies.tables        # writes the tables again from what is kept

Runs of one config file and size that differ in their seed alone are one row; `config+name` is a run of that config
with the overrides named in VARIANTS. The tables of speed are made from results/speed_*.json.
"""

import json
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).parents[2]
KEPT = ROOT / "results" / "runs.json"
PERPLEXITY, BITS = ("perplexity", "test perplexity", 1, 2), ("bits_per_byte", "test bits per byte", 1, 3)
METRICS = {  # config: what is shown of it, in words, its unit and decimals; accuracy in % of the others
    "addition_gru": [("exact_match", "test exact match, %", 100, 2)],
    "multi30k_gru": [("bleu", "test BLEU", 1, 2)],
    "shakespeare_gpt": [("loss", "validation loss", 1, 4)],
    "stdlib_gpt": [BITS],
    "wikitext2_lstm": [PERPLEXITY, BITS],
    "wikitext_gpt": [PERPLEXITY, BITS],
}
NOTES = {
    ("wikitext2_lstm", "cpu"): " (none of this size is published)",
    ("shakespeare_gpt", "cpu"): " (1.88 published, with learned positions)",
    ("shakespeare_gpt+learned", "cpu"): " (1.88 published)",
}
VARIANTS = [  # config, section ("" of none), leaf, value, and the name of the row of its own that it makes
    ("multi30k_gru", "data", "reverse", True, "en_de"),
    ("shakespeare_gpt", "model", "positions", "learned", "learned"),
    ("newsgroups_gpt", "", "init_from", "runs/wikitext_gpt", "pretrained"),
    ("newsgroups_gpt", "data", "remove", ["headers", "footers", "quotes"], "bare"),
]


def metrics_of(config):
    return METRICS.get(config.partition("+")[0], [("accuracy", "test accuracy, %", 100, 2)])


def read_run(folder):
    """What a table needs of a finished run folder."""
    config = json.loads((folder / "config.json").read_text())
    result = json.loads((folder / "result.json").read_text())
    start = json.loads((folder / "manifest.json").read_text())[-1]
    if result["status"] != "finished":
        sys.exit(f"{folder}: {result['status']}")
    flat = config["config"]
    seed, stem = flat.pop("seed"), pathlib.Path(config["file"]).stem
    name = stem
    for of, section, leaf, value, variant in VARIANTS:
        if stem == of and (flat[section] if section else flat).get(leaf) == value:
            name = f"{name}+{variant}"
    split = "test" if "test" in result["metrics"] else "validation"
    return {
        "config": name,
        "size": config["size"],
        "settings": flat,
        "seed": seed,
        "metrics": result["metrics"][split],
        "seconds": result["seconds"],
        "parameters": result["parameters"],
        "versions": start["versions"],
        "hardware": hardware(start),
    }


def hardware(start):
    """What a run had, from its manifest's entry."""
    devices = start["devices"]
    return start["machine"] if set(devices) == {"cpu"} else f"{len(devices)} x {devices[0]}"


def rows(kept):
    """One row a group: name, size, hardware, time, a figure a metric with its spread (n - 1), seeds, parameters."""
    for key, group in sorted(kept.items()):
        name, size = key.split(":")
        figures = [_figure(group, *metric) for metric in metrics_of(name)]
        figures[0] += NOTES.get((name, size), "")
        yield name, size, group[0]["hardware"], clock(group), figures, len(group), group[0]["parameters"]


def _figure(group, metric, _, unit, decimals):
    values = [unit * run["metrics"][metric] for run in group]
    spread = f" ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{decimals}f}{spread}"


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
    return max(ours) / max(theirs), statistics.median(ours) / statistics.median(theirs)


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
            one = statistics.median(seconds["one"])
            beside = [
                f"{one / statistics.median(seconds[mode]):.2f} ({min(seconds['one']) / max(seconds[mode]):.2f} to "
                f"{max(seconds['one']) / min(seconds[mode]):.2f}) times that"
                for mode in ("jobs", "together")
            ]
            beside[1] += f", by {row['modes']['together']['form']}"
            beyond = statistics.median(row["modes"]["one"]["beyond"])
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
        yield model, part, _figure(group, *metrics_of(model)[0]), str(len(group)), clock(group)


SETS = {"wordsim353": "WordSim-353", "simlex999": "SimLex-999"}


def similarity(found):
    """Rows of the table of benchmarks/similarity.py."""
    yield "vectors", "seeds", "time a run", *(f"Spearman on {name}" for name in SETS.values())
    for side, runs in found["sides"].items():
        values = [[run[name] for run in runs] for name in SETS]
        spread = lambda v: f" ± {statistics.stdev(v):.3f}" if len(v) > 1 else ""
        yield side, str(len(runs)), clock(runs), *(f"{statistics.mean(v):.3f}{spread(v)}" for v in values)


def clock(runs):
    seconds = int(statistics.mean(run["seconds"] for run in runs))
    return f"{seconds // 60}:{seconds % 60:02d}"


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


def write_between(name, lines):
    """Replaces what stands in README between <!-- name --> and <!-- end name -->."""
    readme = ROOT / "README.md"
    marks = rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)"
    readme.write_text(re.sub(marks, lambda m: m[1] + "\n".join(lines) + "\n" + m[2], readme.read_text(), flags=re.S))


def markdown(table):
    head, *body = table
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]


def write_header(name, lines):
    """The figures at the end of a config's docstring."""
    path = ROOT / "configs" / f"{name}.py"
    docstring, quotes, code = path.read_text()[3:].partition('"""')
    docstring = re.sub(r"\n*size   hardware.*", "", docstring, flags=re.S).rstrip()
    path.write_text('"""' + docstring + "\n\n" + "\n".join(lines) + "\n" + quotes + code)


def main(folders):
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    groups = {}
    for folder in folders:
        run = read_run(pathlib.Path(folder))
        groups.setdefault(f"{run['config']}:{run['size']}", []).append(run)
    for key, group in groups.items():
        if any(run["settings"] != group[0]["settings"] for run in group):
            sys.exit(f"{key}: the runs differ in more than their seed")
        if len({run["seed"] for run in group}) < len(group):
            sys.exit(f"{key}: a seed twice")
        kept[key] = [{k: v for k, v in run.items() if k not in ("config", "size", "settings")} for run in group]
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    table, headers = [("config", "size", "parameters", "mean ± std", "seeds", "time a run", "hardware")], {}
    for name, size, machine, time, figures, n, parameters in rows(kept):
        words = [metric[1] for metric in metrics_of(name)]
        shown = name.replace("+", ", ")
        reached = "; ".join(f"{word} {figure}" for word, figure in zip(words, figures))
        table.append((shown, size, f"{parameters:,}", reached, str(n), time, machine))
        config, _, variant = name.partition("+")
        head = f"size   hardware                 time   {' / '.join(words)}: mean ± std (seeds)"
        lines = headers.setdefault(config, [head])
        variant = f"  {variant}" if variant else ""
        lines.append(f"{size:<6} {machine:<22} {time:>6}   {' / '.join(figures)} ({n}){variant}")
    write_between("results", markdown(table))
    for file, (name, rows_of) in TABLES.items():
        if (ROOT / "results" / file).is_file():
            write_between(name, markdown(list(rows_of(json.loads((ROOT / "results" / file).read_text())))))
    if (ROOT / "results" / "similarity.json").is_file():
        found = json.loads((ROOT / "results" / "similarity.json").read_text())
        headers["text_glove"] = list(similarity_header(found, "glove"))
        headers["text_word2vec"] = [*similarity_header(found, ("skipgram", "cbow")), *neighbours_header(found)]
    for config, lines in headers.items():
        write_header(config, lines)


if __name__ == "__main__":
    main(sys.argv[1:])
