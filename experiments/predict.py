"""Predicts with a run's best checkpoint: the top classes of image files, of a text, or of a split, and how likely; the
words for a [MASK] in a text; the tag of each word; or the stretches of a text that answer a question.

    python -m experiments.predict --workdir=runs/digits_cnn seven.png three.jpg
    python -m experiments.predict --workdir=runs/digits_cnn --split='test[:5]' --top=3 --output=predictions.jsonl
    python -m experiments.predict --workdir=runs/sst2_lstm --text="a gripping film"
    python -m experiments.predict --workdir=runs/wikitext_bert --text="the war ended in [MASK] ." --top=5
    python -m experiments.predict --workdir=runs/ner_bert --text="Anna met Bert in New York ."
    python -m experiments.predict --workdir=runs/qa_bert --question="Who met Bert?" --text="Anna met Bert in New York ."
    python -m experiments.predict --workdir=hf:mine/sst2_bert --text="a gripping film"

Images are brought to the size and the channels that the model was trained on. stdout is a table; --output gets one JSON
object a line, with unrounded probabilities. A run that classifies pairs of texts wants --text and --second, one on a
mixture of data sets --part, the name of one of them. A folder in Hugging Face's layout is a run whose data set, for
--split, is given as --config.data.name=glue/sst2.
"""

import json

from experiments import command
from research import runs
from research.errors import UserError
from research.inference import answering, prediction, tagging
from research.inference.part import part_of


def make_parser():
    parser = command.parser(__doc__, workdir="the run folder, or hf:FOLDER_OR_NAME")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    parser.add_argument("--text", help="a text, for a run that classifies text, tags words, tells a [MASK] or answers")
    parser.add_argument("--question", help="what is asked of --text, for a run that answers")
    parser.add_argument("--second", help="the second text, for a run that classifies pairs of them")
    parser.add_argument("--part", help="which of its data sets is meant, for a run on a mixture of them")
    parser.add_argument("--split", help="a split in place of files: train, validation, test or a split string")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="classes shown of each; 3")
    parser.add_argument("--output", metavar="FILE", help="write JSON lines there")
    return parser


def main(arguments, overrides):
    workdir = command.required(arguments.workdir, "--workdir")
    if sum((bool(arguments.images), arguments.text is not None, bool(arguments.split))) != 1:
        raise UserError(2, "give image files, or --text, or --split, and one of them alone")
    for name, text in (("--second", arguments.second), ("--question", arguments.question)):
        if text is not None and arguments.text is None:
            raise UserError(2, f"{name}: goes with a text: give --text")
    command.check_output(arguments.output, "--output")
    if arguments.top < 1:
        raise UserError(2, f"--top: {arguments.top}: at least 1")
    images = prediction.read_images(arguments.images, runs.read_spec(workdir)) if arguments.images else None
    own = {"needs_data": bool(arguments.split), "paired": arguments.second is not None}
    run = command.load_run(workdir, overrides, **own)
    if run.spec.parts or arguments.part is not None:
        run = part_of(run, command.required(arguments.part, "--part"))
    rows = list(predictions(run, images, arguments))
    print("\n".join(lines_of_words(rows) if "words" in rows[0] else lines_of_top(rows)))
    if arguments.output:
        command.write_lines(arguments.output, map(json.dumps, rows))


def predictions(run, images, arguments):
    """What a run of a task says: rows, as they stand in --output."""
    given = (arguments.text, arguments.second, arguments.question)
    texts, seconds, asked = ([] if text is None else [command.as_text(text)] for text in given)
    task = run.config.task.name
    if asked and task != "answer_span":
        raise UserError(2, f"--question: the run's task {task} answers none")
    if task == "answer_span" and not images and not seconds:
        if texts and not asked:
            raise UserError(2, "--text: the run answers a question of it: give --question")
        found = answering.read_text(run, *asked, *texts) if texts else answering.read_split(run, arguments.split)
        return answering.top_answers(run, found, arguments.top)
    if task == "tag_tokens" and not images and not seconds:
        return tagging.tags(run, tagging.read_texts(run, texts) if texts else tagging.read_split(run, arguments.split))
    inputs = prediction.read_texts(run, texts, seconds) if texts else images
    inputs = prediction.read_split(run, arguments.split) if arguments.split else inputs
    return prediction.top_classes(run, inputs, arguments.top)


def lines_of_top(rows):
    """A line an input: its likeliest classes, or answers."""
    width = max(len(row["input"]) for row in rows)
    for row in rows:
        truth = f"  (is {row['label']})" if "label" in row else ""
        top = "  ".join(f"{c.get('class', c.get('answer'))} {c['probability']:.4f}" for c in row["top"])
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
