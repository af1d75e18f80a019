"""Translates with a run's best checkpoint: one text, or a file's lines.

    python -m experiments.translate --workdir=runs/addition_gru --text="123+45"
    python -m experiments.translate --workdir=runs/addition_gru --text="7+8" --beam_size=4 --nbest=3
    python -m experiments.translate --workdir=runs/addition_gru --text="7+8" --attention=attention.png
    python -m experiments.translate --workdir=runs/addition_gru --file=sums.txt --output=results.jsonl

A text that is empty, or has no known token, or is longer than the run's max_len ends with an error, and nothing is
translated. stdout is the translations, a line each; with --nbest several, each after its score: the log-probability
over length ** length_penalty. --output gets one JSON object a text, unrounded.
"""

import json

from experiments import command
from research import pictures
from research.errors import UserError
from research.inference import translation
from research.stderr import counted


def make_parser():
    parser = command.parser(__doc__, workdir="the run folder")
    parser.add_argument("--text", help="the text to translate")
    parser.add_argument("--file", metavar="FILE", help="a file with a text a line")
    parser.add_argument("--beam_size", type=int, metavar="K", help="hypotheses kept; 1 is greedy; the run's own")
    parser.add_argument("--length_penalty", type=float, metavar="P", help="power of the length; the run's own")
    parser.add_argument("--nbest", type=int, default=1, metavar="N", help="translations of each text; 1")
    parser.add_argument("--attention", metavar="FILE", help="a PNG of where the model looked, for --text")
    parser.add_argument("--output", metavar="FILE", help="write JSON lines there")
    return parser


def main(arguments, overrides):
    command.no_overrides(overrides)
    workdir = command.required(arguments.workdir, "--workdir")
    if arguments.attention and arguments.text is None:
        raise UserError(2, "--attention: draws one text; give it as --text")
    command.check_output(arguments.attention, "--attention", ".png")
    command.check_output(arguments.output, "--output")
    if arguments.length_penalty is not None and not 0 <= arguments.length_penalty < float("inf"):
        raise UserError(2, f"--length_penalty: {arguments.length_penalty}: a number of at least 0")
    texts, names = command.texts(arguments.text, arguments.file, "--text")
    run = command.load_run(workdir)
    own = {"beam_size": arguments.beam_size, "length_penalty": arguments.length_penalty}
    found = translation.translate(run, texts, names, **own)
    beam_size = arguments.beam_size or run.config.task.beam_size
    if not 1 <= arguments.nbest <= beam_size:
        raise UserError(
            2, f"--nbest: {arguments.nbest}; it must be from 1 to the beam_size {beam_size}; --beam_size widens it"
        )
    rows = []
    for text, hypotheses in zip(texts, counted(found, len(texts), "translated")):
        for hypothesis in hypotheses[: arguments.nbest]:
            print(hypothesis.text if arguments.nbest == 1 else f"{hypothesis.score:.4f}  {hypothesis.text}")
        kept = [{"text": h.text, "score": h.score} for h in hypotheses[: arguments.nbest]]
        rows.append({"source": text, "translations": kept})
    if arguments.attention:
        pictures.attention(arguments.attention, *translation.attention(run, texts[0], hypotheses[0].tokens))
    if arguments.output:
        command.write_lines(arguments.output, map(json.dumps, rows))


if __name__ == "__main__":
    command.run(make_parser, main)
