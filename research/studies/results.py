"""What results/ says: the tables in README and in the headers of configs, made from what was measured.

    python -m experiments.reproduce --write   # writes them again
    python -m experiments.reproduce --check   # names what differs

results/<claim>.json has the runs of a claim (research/studies/claims.py); the others are written by benchmarks/.
"""

import itertools
import json
import pathlib
import re

import numpy as np

from research.errors import UserError
from research.studies import claims, tables
from research.studies.statistics import compare, holm, summary
from research.studies.tables import Cell, Table, as_lines, clock, factor_of, figure, markdown, seeds

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ("mnist_cnn", "cpu")  # whose table README shows as `reproduce` prints it


def _table(lines):
    """A table of plain words."""
    head, *body = lines
    return markdown(Table(list(head), [[Cell(word) for word in row] for row in body], [], len(head)))


def results_table(judged):
    """Rows of the claims that have runs."""
    yield "claim", "size", "parameters", "metric", "ours", "seeds", "published", "verdict", "time a run", "hardware"
    for found in judged:
        if found.runs:
            claim, first = found.claim, found.runs[0]
            yield (
                claim.name, claim.size, f"{first['parameters']:,}", claims.titles(claim), claims.ours(found, "std"),
                seeds(len(found.runs)), claims.published(claim), _verdict(found), clock(found.seconds),
                first["hardware"],
            )  # fmt: skip


def _verdict(found):
    return "-" if found.claim.published is None else claims.said(found)


def reasons(judged):
    """Why claims are not met, a line each."""
    for found in judged:
        if found.verdict == "not met":
            yield f"- {found.claim.name}, {found.claim.size}, is not met: {found.claim.why}"


def pretraining(judged):
    """Rows of what pretraining brings: each claim from random parameters beside the same from pretrained ones.

    The difference has the 95 % interval of Welch's t; the p of its being none are Holm's, over all rows.
    """
    yield "fine-tuned", "metric", "random parameters (seeds)", "pretrained ones (seeds)", "difference", "p"
    named = {(own.claim.name, own.claim.size): own for own in judged if len(own.runs) > 1}
    rows = []
    for (name, size), own in named.items():
        other = named.get((name.replace("+random", "+pretrained"), size))
        if "+random" in name and other:
            metric = own.claim.metrics[0]
            sides = [[run["metrics"][metric] for run in side.runs] for side in (own, other)]
            rows.append((f"{name.replace('+random', '')}:{size}", metric, sides, compare(*reversed(sides))))
    for (name, metric, sides, found), p in zip(rows, holm([found.p for *_, found in rows])):
        factor, half = factor_of(metric), found.interval[1] - found.difference
        reached = (f"{figure(summary(side), 'std', factor)} ({seeds(len(side))})" for side in sides)
        change = " ± ".join(tables.rounded(factor * found.difference, factor * half))
        yield name, tables.title(metric), *reached, change, tables.probability(p)


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
    "speed_bert.json": (
        "speed bert",
        speed_beside(
            {
                "bert_mini": ("BERT-mini, float32", "tokens/s"),
                "bert_mini_bfloat16": ("BERT-mini, bfloat16", "tokens/s"),
            }
        ),
    ),
    "speed_generation.json": (
        "speed generation",
        speed_beside({"text_1": ("one text", "tokens/s"), "text_8": ("eight texts at once", "tokens/s")}),
    ),
    "speed_sweeps.json": ("speed sweeps", lambda found: sweeps(found)),
    "newsgroups.json": ("newsgroups", lambda found, judged: newsgroups(found, judged)),
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


NEWSGROUPS = {"newsgroups_bert": "wikitext_bert", "newsgroups_gpt": "wikitext_gpt"}  # and what they go on from


def newsgroups(found, judged):
    """Rows of the table that has a linear model of benchmarks/newsgroups.py beside our runs."""
    yield "model", "of a message", "test accuracy, %", "seeds", "time a run"
    rows = [(*side.split(", ", 1), group) for side, group in found["sides"].items()]
    for own in judged:
        family = next((name for name in NEWSGROUPS if own.claim.name.startswith(name)), None)
        if family and own.claim.size == "cpu" and own.runs:
            start = f"{NEWSGROUPS[family]}'s" if "pretrained" in own.claim.variant else "random"
            part = "no headers, footers, quotes" if "bare" in own.claim.variant else "all"
            rows.append((f"{family}:cpu from {start} parameters", part, own.runs))
    for model, part, group in sorted(rows, key=lambda row: row[1]):
        values = [run["metrics"]["test/accuracy"] for run in group]
        yield model, part, figure(summary(values), "std", factor_of("test/accuracy")), seeds(len(group)), _clock(group)


def _clock(group):
    return clock(np.mean([run["seconds"] for run in group]))


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


def headers(judged, root):
    """{config: lines at the end of its docstring, none where nothing was measured}."""
    found = {pathlib.Path(own.claim.file).stem: [] for own in judged}
    for own in judged:
        if own.runs:
            claim, compared = own.claim, own.claim.published is not None
            head = f"size   hardware                 time   {claims.titles(claim)}: mean ± std (seeds)"
            lines = found[pathlib.Path(claim.file).stem]
            lines += [head] * (head not in lines)
            line = f"{claim.size:<6} {own.runs[0]['hardware']:<22} {clock(own.seconds):>6}   {claims.ours(own, 'std')}"
            words = [claim.variant, f"{claims.published(claim)}: {claims.said(own)}" * compared]
            lines.append("  ".join([f"{line} ({seeds(len(own.runs))})", *filter(None, words)]))
    path = root / claims.FOLDER / "similarity.json"
    if path.is_file():
        beside = json.loads(path.read_text())
        found["text_glove"] = list(similarity_header(beside, "glove"))
        found["text_word2vec"] = [*similarity_header(beside, ("skipgram", "cbow")), *neighbours_header(beside)]
    return found


def derived(root=ROOT):
    """{path: its text} of README and the configs, with every table and header made again from results/.

    Raises:
        UserError: 2, where there is no README, or claims or results that are none.
    """
    judged = [claims.judge(claim, root / claims.FOLDER) for claim in claims.read(root / "configs")]
    readme = root / "README.md"
    if not readme.is_file():
        raise UserError(2, f"{readme}: not there; --check and --write are for the repository's folder")
    text = _between(readme.read_text(), "results", _table(results_table(judged)))
    text = _between(text, "not met", list(reasons(judged)))
    text = _between(text, "pretraining", _table(pretraining(judged)))
    example = [own for own in judged if (own.claim.name, own.claim.size) == EXAMPLE]
    text = _between(text, "claim", ["", *(f"    {line}".rstrip() for line in as_lines(claims.table(example))), ""])
    for file, (name, rows_of) in TABLES.items():
        path = root / claims.FOLDER / file
        if path.is_file():
            beside = (judged,) if name == "newsgroups" else ()
            text = _between(text, name, _table(rows_of(json.loads(path.read_text()), *beside)))
    made = {readme: text}
    for config, lines in headers(judged, root).items():
        path = root / "configs" / f"{config}.py"
        docstring, quotes, code = path.read_text()[3:].partition('"""')
        docstring = re.sub(r"\n*size   hardware.*", "", docstring, flags=re.S).rstrip()
        made[path] = '"""' + "\n".join([docstring, *[""] * bool(lines), *lines, quotes]) + code
    return made


def differing(root=ROOT):
    """Lines that name what `derived` would change, kept runs that are of another config than their claim's now, and
    claims that are not met and say not why."""
    judged = [claims.judge(claim, root / claims.FOLDER) for claim in claims.read(root / "configs")]
    found = [own.stale for own in judged if own.stale]
    unsaid = [own.claim for own in judged if own.verdict == "not met" and not own.claim.why]
    found += [f"{claim.file}: {claim.name}, {claim.size}, is not met; its `why` says nothing" for claim in unsaid]
    for path, text in derived(root).items():
        pairs = itertools.zip_longest(path.read_text().splitlines(), text.splitlines(), fillvalue="")
        for number, (there, wanted) in enumerate(pairs, start=1):
            if there != wanted:
                found.append(f"{path.relative_to(root)}, line {number}: {there!r} stands there, {wanted!r} in results/")
                break  # those below may have moved
    return found


def _between(text, name, lines):
    """Replaces what stands between <!-- name --> and <!-- end name -->."""
    marks = rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)"
    return re.sub(marks, lambda m: m[1] + "\n".join(lines) + "\n" + m[2], text, flags=re.S)
