"""20 Newsgroups by a linear model on TF-IDF, to stand beside newsgroups_gpt and newsgroups_bert: whole and bare.

    python -m benchmarks.newsgroups

scikit-learn's TfidfVectorizer (sublinear_tf, English stop words, max_df 0.5) and LinearSVC, its defaults for the rest,
trained on the same messages as the config's runs: validation is left out, and nothing is chosen on it. Seeds 0, 1 and
2 gave the same accuracy. Writes results/newsgroups.json, from which `make results` makes README's
table.
"""

import argparse
import datetime
import json
import time

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from benchmarks.turns import ROOT
from research import config as configs
from research import manifest
from research.data.newsgroups import REMOVALS, messages

PARTS = {"all": (), "no headers, footers, quotes": tuple(REMOVALS)}


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sides = {f"TF-IDF and LinearSVC, {part}": [trained(remove)] for part, remove in PARTS.items()}
    found = {"machine": manifest.machine(), "gflops": manifest.matmul_gflops()}
    found |= {"date": datetime.date.today().isoformat(), "sides": sides}
    (ROOT / "results" / "newsgroups.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def trained(remove):
    """The test accuracy of one model, and how long it took."""
    raw, splits = messages(remove), configs.base().data.splits
    train, _ = raw.carve(splits)
    texts, labels = read(raw, train)
    test_texts, test_labels = read(raw, splits.test)
    began = time.monotonic()
    vectorizer = TfidfVectorizer(sublinear_tf=True, max_df=0.5, stop_words="english")
    model = LinearSVC(random_state=0).fit(vectorizer.fit_transform(texts), labels)
    accuracy = float(model.score(vectorizer.transform(test_texts), test_labels))
    return {"metrics": {"test/accuracy": accuracy}, "seconds": time.monotonic() - began, "examples": len(texts)}


def read(raw, split):
    """Texts and labels of a split."""
    ((base, start, stop),) = raw.pieces(split)
    examples = raw.open(base).__getitems__(list(range(start, stop)))
    return [example["text"].decode(errors="replace") for example in examples], [
        example["label"] for example in examples
    ]


if __name__ == "__main__":
    main()
