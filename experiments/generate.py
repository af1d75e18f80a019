"""Text that goes on from a prompt, written by the best checkpoint of a run that is a language model.

    python -m experiments.generate --workdir=runs/stdlib_gpt --prompt="def read(path):" --tokens=100
    python -m experiments.generate --workdir=runs/stdlib_gpt --prompt="import " --temperature=0.8 --num_samples=3
    python -m experiments.generate --workdir=runs/stdlib_gpt --prompt="class " --temperature=0 --stop="class"
    python -m experiments.generate --workdir=runs/stdlib_gpt --prompt="return " --tokens=10 --beam_size=4
    python -m experiments.generate --workdir=runs/stdlib_gpt --file=prompts.txt --output=texts.jsonl
    python -m experiments.generate --workdir=hf:gpt2 --prompt="The war"

stdout is the text, prompt first, as it is written; of several the foremost, each behind a line that numbers it. A text
follows from seed, prompt and its number among the samples, whatever is written beside it, and ends by the end of a
document, before a --stop, or after --tokens. Filters come in the order penalty, temperature, top_k, top_p, min_p.

Where a text has filled the model's context, the latter half of that is read again and the text goes on. A beam does
not: prompt and text must fit.
"""

import json
import sys
import time

from experiments import command
from research.errors import UserError
from research.generation import PLAIN, Sampling
from research.inference import continuation


def make_parser():
    parser = command.parser(__doc__, workdir="the run folder, or hf:FOLDER_OR_NAME")
    parser.add_argument("--prompt", metavar="TEXT", help="what the text begins with")
    parser.add_argument("--file", metavar="FILE", help="a file with a prompt a line")
    parser.add_argument("--long_prompt", choices=("refuse", "cut"), default="refuse",
                        help="one longer than the model's context: refuse, or cut to its end; refuse")  # fmt: skip
    parser.add_argument("--tokens", type=int, default=200, metavar="N", help="how many are written at most; 200")
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="0 is greedy; 1, as the model has it"
    )
    parser.add_argument("--top_k", type=int, metavar="K", help="draw from the K likeliest tokens; all")
    parser.add_argument(
        "--top_p", type=float, default=1.0, metavar="P", help="from the likeliest that weigh P together; 1"
    )
    parser.add_argument(
        "--min_p", type=float, default=0.0, metavar="P", help="from those P times as likely as the first; 0"
    )
    parser.add_argument("--repetition_penalty", type=float, default=1.0, metavar="R",
                        help="divides the logits of tokens that stand there already; 1")  # fmt: skip
    parser.add_argument("--num_samples", type=int, default=1, metavar="N", help="texts of each prompt; 1")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, another text; 0")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends a text; may be given again")
    parser.add_argument("--beam_size", type=int, metavar="K", help="the likeliest text of a beam, in place of drawing")
    parser.add_argument(
        "--length_penalty", type=float, default=1.0, metavar="P", help="of a beam: power of the length; 1"
    )
    parser.add_argument("--output", metavar="FILE", help="write JSON lines there")
    return parser


RANGES = {  # flag: what it must be, and in words
    "tokens": (lambda x: x >= 1, "at least 1"),
    "temperature": (lambda x: 0 <= x < float("inf"), "a number of at least 0"),
    "top_k": (lambda x: x is None or x >= 1, "at least 1"),
    "top_p": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "min_p": (lambda x: 0 <= x <= 1, "from 0 to 1"),
    "repetition_penalty": (lambda x: 0 < x < float("inf"), "a number above 0"),
    "num_samples": (lambda x: x >= 1, "at least 1"),
    "seed": (lambda x: 0 <= x < 2**63, "from 0 to 2^63 - 1"),
    "beam_size": (lambda x: x is None or x >= 1, "at least 1"),
    "length_penalty": (lambda x: 0 <= x < float("inf"), "a number of at least 0"),
}


def main(arguments, overrides):
    workdir = command.required(arguments.workdir, "--workdir")
    for flag, (holds, words) in RANGES.items():
        if not holds(getattr(arguments, flag)):
            raise UserError(2, f"--{flag}: {getattr(arguments, flag)}; it must be {words}")
    command.check_output(arguments.output, "--output")
    prompts, names = command.texts(arguments.prompt, arguments.file, "--prompt")
    run = command.load_run(workdir, overrides)
    continuation.ready(run)
    rows = continuation.encode(run, prompts, names, cut=arguments.long_prompt == "cut")
    texts, began, first = {}, time.perf_counter(), None
    for prompt, sample, text, ended in _written(arguments, run, rows):
        first = first or time.perf_counter() - began
        if (prompt, sample) not in texts:
            if len(rows) * arguments.num_samples > 1:
                print(f"--- prompt {prompt + 1}, text {sample + 1}")
            print(prompts[prompt], end="")
        texts[prompt, sample] = texts.get((prompt, sample), "") + text
        print(text, end="\n" if ended else "", flush=True)
    seconds, plural = time.perf_counter() - began, "s" * (len(texts) > 1)
    print(f"{len(texts)} text{plural} in {seconds:.1f} s, the first words after {first:.1f}", file=sys.stderr)
    if arguments.output:
        line = lambda prompt, sample: {"prompt": prompts[prompt], "sample": sample, "text": texts[prompt, sample]}
        command.write_lines(arguments.output, (json.dumps(line(*key)) for key in texts))


def _written(arguments, run, rows):
    """The texts, piece by piece."""
    own = {"steps": arguments.tokens, "samples": arguments.num_samples}
    how = Sampling(**{name: getattr(arguments, name) for name in Sampling._fields})
    if arguments.beam_size is None:
        stop = tuple(map(command.as_text, arguments.stop))
        return continuation.stream(run, rows, how=how, seed=arguments.seed, stop=stop, **own)
    given = [name for name in Sampling._fields if getattr(how, name) != getattr(PLAIN, name)]
    for name in [*given, *["stop"][: len(arguments.stop)]]:
        raise UserError(2, f"--{name}: not with --beam_size, which draws nothing")
    return continuation.search(run, rows, beam_size=arguments.beam_size, length_penalty=arguments.length_penalty, **own)


if __name__ == "__main__":
    command.run(make_parser, main)
