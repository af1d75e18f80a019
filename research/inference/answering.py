"""From a question and a text to the stretches of the text that a run thinks answer it."""

import itertools

import jax
import numpy as np

from research import config as configs
from research.data.questions import starts, window
from research.inference.prediction import examples, in_batches
from research.inference.translation import encode

NEGLIGIBLE = 1e-12  # probability of a stretch


def read_text(run, question, text):
    """A question and the windows of a text: [(question, windows, answers)], see research.data.questions.window; the
    answers are None.

    Raises:
        UserError: 2, for one that is empty or of no known token.
    """
    own, ids = configs.arguments("data", run.config), run.tokenizer
    max_len = own["max_len"]
    (asked,), _ = encode(run, [question], ["--question"]), encode(run, [text], ["--text"])
    asked = asked[: own["question_len"]]
    ((row, spans),) = ids.encode_spans([text])
    parts = (ids, asked, text, row, np.array(spans))
    places = starts(len(row), len(asked), ids, max_len, own["stride"])
    return [(question, [window(*parts, at, max_len) for at in places], None)]


def read_split(run, split):
    """The questions of a split with their windows and answers, as read_text gives one."""
    for _, group in itertools.groupby(examples(run, split), lambda pair: int(pair[1]["question"])):
        windows = [{**example, "text": bytes(example["text"])} for _, example in group]
        tokens, types = windows[0]["tokens"], windows[0]["types"]
        question = run.tokenizer.decode(tokens[: types.argmax()])
        yield question, windows, bytes(windows[0]["answers"]).rstrip(b"\0").decode(errors="replace").split("\0")


def top_answers(run, asked, top):
    """For each question {"input": it, "top": [{"answer", "probability"}], "label": the answers, where they are known}.

    Probabilities are of stretches, among all of all windows of a text that may be an answer.
    """
    predict = jax.jit(lambda variables, batch: run.task.predict(run.model, variables, batch)["spans"])
    for question, windows, answers in asked:
        rows = [{name: x for name, x in one.items() if name in ("tokens", "types", "spans")} for one in windows]
        scores = np.stack(list(in_batches(lambda batch: predict(run.variables, batch), rows))).astype(np.float64)
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
        found = {}  # of the same words in several windows the surest
        for i, first, more in zip(*np.nonzero(scores > NEGLIGIBLE)):
            begin, stop = windows[i]["spans"][first, 0], windows[i]["spans"][first + more, 1]
            text = windows[i]["text"][begin:stop].decode(errors="replace").strip()
            found[text] = max(found.get(text, 0.0), float(scores[i, first, more]))
        best = sorted(found.items(), key=lambda pair: -pair[1])[:top]
        row = {"input": question, "top": [{"answer": text, "probability": p} for text, p in best]}
        yield row if answers is None else {**row, "label": " | ".join(answers)}
