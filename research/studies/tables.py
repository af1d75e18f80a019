"""Measured results: from run folders to results/runs.json, and from there to the tables in README and configs.

    python -m research.studies.tables runs/mnist_cnn_0 runs/mnist_cnn_1 runs/mnist_cnn_2
    python -m research.studies.tables        # writes the tables again from what is kept

Runs of one config file and size that differ in their seed alone are one row; `config+name` is a run of that config
with the overrides named in VARIANTS. The tables of speed are made from results/speed_*.json.
"""

import json
import os
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).parents[2]
KEPT = ROOT / "results" / "runs.json"
METRICS = {  # config: what is shown of its test metrics, its name in words, and its unit; accuracy in % of the others
    "addition_gru": ("exact_match", "exact match, %", 100),
    "multi30k_gru": ("bleu", "BLEU", 1),
    "wikitext2_lstm": ("perplexity", "perplexity", 1),
    "text_word2vec": ("loss", "loss, nats", 1),
    "text_glove": ("loss", "loss", 1),
}
VARIANTS = {("multi30k_gru", "data", "reverse", True): "en_de"}  # config, section, leaf, value: a row of its own


def metric_of(config):
    return METRICS.get(config.partition("+")[0], ("accuracy", "accuracy, %", 100))


def read_run(folder):
    """What a table needs of a finished run folder."""
    config = json.loads((folder / "config.json").read_text())
    result = json.loads((folder / "result.json").read_text())
    start = json.loads((folder / "manifest.json").read_text())[-1]
    if result["status"] != "finished":
        sys.exit(f"{folder}: {result['status']}")
    flat = config["config"]
    seed, name = flat.pop("seed"), pathlib.Path(config["file"]).stem
    for (of, section, leaf, value), variant in VARIANTS.items():
        if name == of and flat[section].get(leaf) == value:
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
        "hardware": hardware(start["devices"]),
    }


def hardware(devices):
    if devices != ["cpu"]:
        return f"{len(devices)} x {devices[0]}"
    info = pathlib.Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return f"{os.cpu_count()} cores{f' ({model[1].strip()})' if model else ''}"


def rows(kept):
    """One row a group: name, size, hardware, seconds, figure with its spread (n - 1), seeds, parameters."""
    for key, group in sorted(kept.items()):
        name, size = key.split(":")
        metric, _, unit = metric_of(name)
        values = [unit * run["metrics"][metric] for run in group]
        figure = f"{statistics.mean(values):.2f}"
        if len(values) > 1:
            figure += f" ± {statistics.stdev(values):.2f}"
        seconds = statistics.mean(run["seconds"] for run in group)
        yield name, size, group[0]["hardware"], seconds, figure, len(values), group[0]["parameters"]


def speed_of_images(found):
    """Rows of the table of benchmarks/images.py."""
    yield "step", "ours, examples/s", "over PyTorch eager", "over channels_last", "start, s", "MB", "data wait"
    for name, sides in found.items():
        rate = {side: statistics.median(sides[side]["per_second"]) for side in sides}
        both = [
            f"{sides['ours'][key] / unit:.{digits}f} ({sides['torch'][key] / unit:.{digits}f})"
            for key, unit, digits in (("start_seconds", 1, 1), ("peak_bytes", 1e6, 0))
        ]
        network, batch = name.rsplit("_", 1)
        yield (
            f"{network}, batch {batch}",
            f"{rate['ours']:,.0f}",
            f"{rate['ours'] / rate['torch']:.2f}",
            f"{rate['ours'] / rate['torch_channels_last']:.2f}",
            *both,
            f"{100 * statistics.median(sides['ours']['wait']):.1f} %",
        )


def speed_beside(peer, what):
    """Makes the rows of a table of two sides; `what` names the workloads and their units."""

    def table(found):
        yield "work", "ours", peer, "ours over it"
        for name, sides in found.items():
            rate = {side: statistics.median(sides[side]["per_second"]) for side in sides}
            (other,) = [side for side in sides if side != "ours"]
            words, unit = what[name]
            yield (
                words,
                f"{rate['ours']:,.0f} {unit}",
                f"{rate[other]:,.0f}",
                f"{rate['ours'] / rate[other]:.2f}",
            )

    return table


TABLES = {  # the file in results/, and what its table is between in README
    "speed_images.json": ("speed", speed_of_images),
    "speed_recurrent.json": (
        "speed recurrent",
        speed_beside(
            "PyTorch eager",
            {
                "gru": ("training, no attention", "target tokens/s"),
                "gru_additive": ("training, additive attention", "target tokens/s"),
                "gru_additive_fed": ("training, additive attention, input feeding", "target tokens/s"),
                "greedy": ("greedy decoding", "sentences/s"),
                "beam_4": ("beam search, beam 4", "sentences/s"),
            },
        ),
    ),
    "speed_word_vectors.json": (
        "speed word vectors",
        speed_beside(
            "gensim, 2 workers",
            {
                "skipgram_1e-3": ("skip-gram, subsampling at 1e-3", "words/s"),
                "skipgram_1e-4": ("skip-gram, subsampling at 1e-4", "words/s"),
            },
        ),
    ),
    "similarity.json": ("similarity", lambda found: similarity(found)),
}


def similarity(found):
    """Rows of the table of benchmarks/similarity.py."""
    names = list(found["ours"][0])
    yield "vectors", "seeds", *(f"Spearman on {name}" for name in names)
    for side, runs in found.items():
        values = [[run[name] for run in runs] for name in names]
        spread = lambda v: f" ± {statistics.stdev(v):.3f}" if len(v) > 1 else ""
        yield side, str(len(runs)), *(f"{statistics.mean(v):.3f}{spread(v)}" for v in values)


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
    table, headers = [("config", "size", "parameters", "test, mean ± std", "seeds", "time a run", "hardware")], {}
    for name, size, machine, seconds, figure, n, parameters in rows(kept):
        words, clock = metric_of(name)[1], f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        shown = name.replace("+", ", ")
        table.append((shown, size, f"{parameters:,}", f"{words} {figure}", str(n), clock, machine))
        config, _, variant = name.partition("+")
        lines = headers.setdefault(config, [f"size   hardware                 time   test {words}: mean ± std (seeds)"])
        lines.append(f"{size:<6} {machine:<22} {clock:>6}   {figure} ({n})" + (f"  {variant}" if variant else ""))
    write_between("results", markdown(table))
    for file, (name, rows_of) in TABLES.items():
        if (ROOT / "results" / file).is_file():
            write_between(name, markdown(list(rows_of(json.loads((ROOT / "results" / file).read_text())))))
    if (ROOT / "results" / "similarity.json").is_file():
        _, *sides = similarity(json.loads((ROOT / "results" / "similarity.json").read_text()))
        headers["text_word2vec"] = [
            "size   hardware and result: Spearman, mean ± std (seeds), at cpu; README has the machine"
        ]
        headers["text_word2vec"] += [f"{side:<6} {' / '.join(values)} ({n})" for side, n, *values in sides]
    for config, lines in headers.items():
        write_header(config, lines)


if __name__ == "__main__":
    main(sys.argv[1:])
