"""Predicts with a run's best checkpoint: the top classes of image files, of a text, or of a split, and how likely; the
words for a [MASK] in a text; or the tag of each word.

    python -m experiments.predict --workdir=runs/digits_cnn seven.png three.jpg
    python -m experiments.predict --workdir=runs/digits_cnn --split='test[:5]' --top=3 --output=predictions.jsonl
    python -m experiments.predict --workdir=runs/sst2_lstm --text="a gripping film"
    python -m experiments.predict --workdir=runs/wikitext_bert --text="the war ended in [MASK] ." --top=5
    python -m experiments.predict --workdir=runs/ner_bert --text="Anna met Bert in New York ."

Images are brought to the size and the channels that the model was trained on. stdout is a table; --output gets one JSON
object a line, with unrounded probabilities. A run that classifies pairs of texts wants --text and --second.
"""

import json

from experiments import command
from research import runs
from research.errors import UserError
from research.inference import prediction, tagging


def make_parser():
    parser = command.parser(__doc__, workdir="the run folder")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    parser.add_argument("--text", help="a text, for a run that classifies text, tags words, or tells a [MASK] in it")
    parser.add_argument("--second", help="the second text, for a run that classifies pairs of them")
    parser.add_argument("--split", help="a split in place of files: train, validation, test or a split string")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="classes shown of each; 3")
    parser.add_argument("--output", metavar="FILE", help="write JSON lines there")
    return parser


def main(arguments, overrides):
    command.no_overrides(overrides)
    workdir = command.required(arguments.workdir, "--workdir")
    if sum((bool(arguments.images), arguments.text is not None, bool(arguments.split))) != 1:
        raise UserError(2, "give image files, or --text, or --split, and one of them alone")
    if arguments.second is not None and arguments.text is None:
        raise UserError(2, "--second: the second of two texts; give --text, the first")
    command.check_output(arguments.output, "--output")
    if arguments.top < 1:
        raise UserError(2, f"--top: {arguments.top}: at least 1")
    spec = runs.read_spec(workdir)
    images = prediction.read_images(arguments.images, spec) if arguments.images else None
    run = command.load_run(workdir)
    texts, seconds = ([command.as_text(t)] if t is not None else [] for t in (arguments.text, arguments.second))
    if run.config.task.name == "tag_tokens" and not images and not seconds:
        sentences = tagging.read_texts(run, texts) if texts else tagging.read_split(run, arguments.split)
        rows, lines = list(tagging.tags(run, sentences)), lines_of_words
    else:
        inputs = prediction.read_texts(run, texts, seconds) if texts else images
        inputs = prediction.read_split(run, arguments.split) if arguments.split else inputs
        rows, lines = list(prediction.top_classes(run, inputs, arguments.top)), lines_of_classes
    print("\n".join(lines(rows)))
    if arguments.output:
        command.write_lines(arguments.output, map(json.dumps, rows))


def lines_of_classes(rows):
    """A line an input: its likeliest classes."""
    width = max(len(row["input"]) for row in rows)
    for row in rows:
        truth = f"  (is {row['label']})" if "label" in row else ""
        top = "  ".join(f"{c['class']} {c['probability']:.4f}" for c in row["top"])
        yield f"{row['input']:<{width}}  {top}{truth}"


def lines_of_words(rows):
    """A line a word: its likeliest tag."""
    width = max(len(word["word"]) for row in rows for word in row["words"])
    for row in rows:
        yield row["input"]
        for word in row["words"]:
            truth = f"  (is {word['label']})" if word.get("label", word["tag"]) != word["tag"] else ""
            yield f"    {word['word']:<{width}}  {word['tag']} {word['probability']:.4f}{truth}"


if __name__ == "__main__":
    command.run(make_parser, main)
