"""Word vectors of finished runs beside gensim's on the same words: agreement with people's judgements of similarity.

    python -m benchmarks.similarity --runs runs/word2vec_0 runs/glove_0 --sets wordsim353.tsv simlex999.txt

gensim trains one model a seed of --seeds, with the runs' dimensions, window, negatives, subsampling, epochs and least
count. Sets hold word, word and score a line: WordSim-353 (Finkelstein et al. 2002), SimLex-999 (Hill et al. 2015).
Neighbours are shown of WORDS, which were chosen before any was looked at, by the first run. Writes
results/similarity.json, from which `make results` makes README's table.
"""

import argparse
import datetime
import json
import pathlib
import time

from benchmarks.turns import ROOT
from benchmarks.word_vectors import gensim_texts
from experiments.nearest import of_run
from research import manifest, runs
from research.inference import similarity
from research.pretrained import word_vectors

WORDS = ("king", "city", "music", "war", "river", "doctor", "red", "three", "football", "summer")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs",
        nargs="+",
        required=True,
        help="run folders, skip-gram first; one a seed",
    )
    parser.add_argument("--sets", nargs="+", required=True, help="files of judged pairs")
    parser.add_argument("--seeds", type=int, default=1, help="models that gensim trains; 1")
    arguments = parser.parse_args()
    ours, sides = [(runs.load(folder), of_run(folder)) for folder in arguments.runs], {}
    for run, vectors in ours:
        row = {**scores(vectors, arguments.sets), "seconds": run.result["seconds"]}
        sides.setdefault(f"ours, {run.config.task.name}", []).append(row)
    run, first = ours[0]
    for seed in range(arguments.seeds):
        began = time.monotonic()
        vectors = by_gensim(run.config, seed)
        row = {**scores(vectors, arguments.sets), "seconds": time.monotonic() - began}
        sides.setdefault("gensim, skipgram", []).append(row)
    found = {
        "machine": manifest.machine(),
        "gflops": manifest.matmul_gflops(),
        "date": datetime.date.today().isoformat(),
        "sides": sides,
        "neighbours": {word: [near for near, _ in similarity.neighbours(first, [word], top=5)] for word in WORDS},
    }
    (ROOT / "results" / "similarity.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def scores(vectors, sets):
    return {pathlib.Path(path).stem: similarity.correlation(vectors, path).spearman for path in sets}


def by_gensim(config, seed):
    from gensim.models import Word2Vec

    texts = gensim_texts(config)
    own = {"vector_size": config.model.width, "window": config.task.window, "negative": config.task.negatives}
    rest = {"sample": config.task.subsample, "epochs": int(config.train.epochs), "min_count": config.data.min_count}
    model = Word2Vec(texts, sg=1, seed=seed, workers=2, **own, **rest)
    return word_vectors.Vectors(tuple(model.wv.index_to_key), model.wv.vectors)


if __name__ == "__main__":
    main()
