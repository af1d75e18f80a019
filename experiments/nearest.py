"""Asks vectors of words: nearest neighbours, analogies, agreement with people's judgements; exports and draws them; and
vectors of sentences: their neighbours among the lines of a file.

    python -m experiments.nearest --workdir=runs/text_word2vec town war
    python -m experiments.nearest --workdir=runs/text_word2vec --analogy="town - war + game" --top=5
    python -m experiments.nearest --workdir=runs/text_word2vec --export=vectors.bin --picture=words.png
    python -m experiments.nearest --vectors=vectors.bin town war game --picture=three.png
    python -m experiments.nearest --workdir=runs/sentences_bert --sentences=lines.txt "The war ended in spring ."
    python -m experiments.nearest --workdir=hf:sentence-transformers/all-MiniLM-L6-v2 --sentences=lines.txt "the war"

Vectors are those of a run's best checkpoint, or of a file in word2vec's formats (binary where its name ends in .bin,
else text), as gensim reads and writes them. An analogy is a sum of words, or three words: "man king woman" asks for
what is to woman as king is to man. --similarity reads files in WordSim-353's form (word, word, score), --analogies such
as questions-words.txt.
"""

import numpy as np

from experiments import command
from research.errors import UserError
from research.inference import similarity
from research.pretrained import word_vectors

PICTURED = 100  # words of a picture for which none are given: the most frequent


def make_parser():
    parser = command.parser(__doc__, workdir="the run folder, or hf:FOLDER_OR_NAME")
    parser.add_argument("words", nargs="*", metavar="WORD", help="words, or sentences, whose neighbours are shown")
    parser.add_argument("--sentences", metavar="FILE", help="sentences, one a line, whose neighbours are looked for")
    parser.add_argument("--vectors", metavar="FILE", help="a file in word2vec's text or binary (.bin) format")
    parser.add_argument("--analogy", metavar="SUM", help='as "king - man + woman", or "man king woman"')
    parser.add_argument("--top", type=int, default=10, metavar="K", help="answers shown; 10")
    parser.add_argument("--similarity", metavar="FILE", help="rank correlation with a file of judged pairs")
    parser.add_argument("--analogies", metavar="FILE", help="accuracy on a file of analogies")
    parser.add_argument("--export", metavar="FILE", help="write the vectors there; binary where it ends in .bin")
    parser.add_argument("--picture", metavar="FILE", help="draw the words, or the most frequent where none are given")
    return parser


def main(arguments, overrides):
    if (arguments.workdir is None) == (arguments.vectors is None):
        raise UserError(2, "give --workdir, or --vectors, and not both")
    command.check_output(arguments.picture, "--picture", ".png")
    command.check_output(arguments.export, "--export")
    if arguments.top < 1:
        raise UserError(2, f"--top: {arguments.top}: at least 1")
    asked = (arguments.analogy, arguments.similarity, arguments.analogies, arguments.export, arguments.picture)
    if not arguments.words and not any(asked):
        raise UserError(
            2, "nothing is asked: give words, or one of --analogy, --similarity, --analogies, --export, --picture"
        )
    source = arguments.workdir or arguments.vectors
    words, asked_alone = [command.as_text(word) for word in arguments.words], []
    if arguments.sentences:
        vectors, asked_alone = of_sentences(arguments, overrides, words)
    else:
        command.no_overrides(overrides)
        vectors = of_run(source) if arguments.workdir else word_vectors.read(source)
    for word in words:
        show(word, similarity.neighbours(vectors, [word], top=arguments.top, left_out=asked_alone))
    if arguments.analogy:
        plus, minus = parse_analogy(arguments.analogy)
        show(arguments.analogy, similarity.neighbours(vectors, plus, minus, arguments.top))
    if arguments.similarity:
        found = similarity.correlation(vectors, arguments.similarity)
        print(f"{arguments.similarity} spearman {found.spearman:.4f}  pairs {found.pairs}  unknown {found.unknown}")
    if arguments.analogies:
        for found in similarity.analogies(vectors, arguments.analogies):
            share = f"{found.right / found.asked:.4f}" if found.asked else "-"
            print(f"{found.section} accuracy {share}  ({found.right} of {found.asked}; unknown {found.unknown})")
    if arguments.export:
        word_vectors.write(arguments.export, *vectors)
    if arguments.picture:
        words = words or vectors.words[:PICTURED]
        similarity.draw(vectors, words, arguments.picture, f"vectors of {source}")


def of_run(folder):
    """The vectors of a run of skip-gram, CBOW or GloVe; words that its text has, the frequent first."""
    run = command.load_run(folder)
    if run.config.task.name not in ("skipgram", "cbow", "glove"):
        raise UserError(2, f"{run.folder}: its task {run.config.task.name} makes no word vectors")
    ids, special = run.tokenizer, (run.tokenizer.pad, run.tokenizer.unknown, run.tokenizer.begin, run.tokenizer.end)
    kept = [i for i in range(ids.size) if i not in special]  # the tokenizer's ids go by frequency
    matrix = np.asarray(run.model.apply(run.variables, method="vectors"))
    return word_vectors.Vectors(tuple(ids.vocabulary[i] for i in kept), matrix[kept])


def of_sentences(arguments, overrides, asked):
    """The vectors of the lines of a file and of the sentences asked about, and which of these are no line.

    Raises:
        UserError: 2, for what sentences are not asked, 3 for a file that cannot be read.
    """
    for name in ("vectors", "analogy", "similarity", "analogies", "export"):
        if getattr(arguments, name):
            raise UserError(2, f"--{name}: of words alone; leave --sentences out")
    found = zip(*command.texts(None, arguments.sentences, "--sentences"))
    lines = {line: place for line, place in found if line.strip()}  # each once
    named = dict.fromkeys(asked, "the sentence asked about") | lines
    matrix = similarity.sentence_vectors(
        command.load_run(arguments.workdir, overrides), list(named), list(named.values())
    )
    return word_vectors.Vectors(tuple(named), matrix), [text for text in asked if text not in lines]


def parse_analogy(text):
    """ "king - man + woman" or "man king woman" -> words that count, words that count against."""
    terms = text.split()
    if len(terms) == 3 and not set(terms) & {"+", "-"}:
        return [terms[1], terms[2]], [terms[0]]
    terms = terms if terms and terms[0] in ("+", "-") else ["+", *terms]
    signs, words = terms[::2], terms[1::2]
    if len(signs) != len(words) or "+" not in signs or set(signs) - {"+", "-"} or set(words) & {"+", "-"}:
        raise UserError(2, f'--analogy: {text!r}: "king - man + woman" is meant, with blanks, or three words')
    plus = [word for sign, word in zip(signs, words) if sign == "+"]
    return plus, [word for sign, word in zip(signs, words) if sign == "-"]


def show(title, rows):
    width = max((len(word) for word, _ in rows), default=0)
    print(title)
    for word, cosine in rows:
        print(f"    {word:<{width}}  {cosine:.4f}")


if __name__ == "__main__":
    command.run(make_parser, main)
