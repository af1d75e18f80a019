"""The raw formats of data sets of text: {member of an archive: bytes} -> {split: [(key, {field: value})]}."""

import json
import re

from research.errors import UserError


def _text(members, name):
    try:
        return members[name].decode()
    except UnicodeDecodeError as error:
        line = members[name].count(b"\n", 0, error.start) + 1
        raise UserError(3, f"{name}: line {line} is not UTF-8: {error.reason}") from None


def _lines(members, name):
    lines = _text(members, name).split("\n")  # splitlines would cut at U+2028 and the like too
    return lines if lines[-1] else lines[:-1]


def multi30k(members):
    def split(file):
        english, german = (_lines(members, f"{file}.{language}") for language in ("en", "de"))
        if len(english) != len(german):
            raise UserError(3, f"{file}.en has {len(english)} lines, {file}.de {len(german)}: they are no pairs")
        return [(i, {"en": en.strip(), "de": de.strip()}) for i, (en, de) in enumerate(zip(english, german))]

    return {
        "train": split("train"),
        "validation": split("val"),
        "test": split("test_2016_flickr"),
        "test_2017_flickr": split("test_2017_flickr"),
    }


def tiny_shakespeare(members):
    text = _text(members, "input.txt")
    first = int(len(text) * 0.9)
    second = first + int((len(text) - first) * 0.5)
    pieces = {"train": text[:first], "validation": text[first:second], "test": text[second:]}
    return {split: [(split, {"text": piece})] for split, piece in pieces.items()}


def wikitext2(members):
    def split(name):
        name = f"wikitext-2/wiki.{name}.tokens"
        text = _text(members, name)
        starts = [found.start() for found in re.finditer(r"(?<=^ \n) = [^=\n]+ = \n(?= \n)", text, re.MULTILINE)]
        if not starts:
            raise UserError(3, f"{name}: it has no article: no line ' = Title = ' between two blank lines")
        cuts = [0, *starts[1:], len(text)]
        return [(i, {"text": text[start:stop]}) for i, (start, stop) in enumerate(zip(cuts, cuts[1:]))]

    return {"train": split("train"), "validation": split("valid"), "test": split("test")}


def _rows(members, name, columns):
    """The rows of a TSV file with this header; TAB alone separates, nothing quotes."""
    rows = [line.split("\t") for line in _lines(members, name)]
    for number, row in enumerate(rows, 1):
        if row != columns if number == 1 else len(row) != len(columns):
            raise UserError(3, f"{name}: line {number} has not the columns {'<TAB>'.join(columns)}: {row!r:.80}")
    return rows[1:]


def glue(folder, texts, labels):
    """A classification task of GLUE, with text columns named `texts` and its labels as the files have them."""

    def examples(members):
        def labelled(name):
            numbered = ["index"] if len(texts) > 1 else []  # SST-2's lines have no number
            found = []
            for i, row in enumerate(_rows(members, name, [*numbered, *texts, "label"])):
                if row[-1] not in labels:
                    wanted = f"neither {' nor '.join(labels)}"
                    raise UserError(3, f"{name}: line {i + 2} has the label {row[-1]!r}, which is {wanted}")
                own = dict(zip(texts, row[len(numbered) :]))
                found.append((i, {**own, "label": labels.index(row[-1]), "idx": i}))
            return found

        hidden = enumerate(_rows(members, f"{folder}/test.tsv", ["index", *texts]))
        return {
            "train": labelled(f"{folder}/train.tsv"),
            "validation": labelled(f"{folder}/dev.tsv"),
            "test": [(i, {**dict(zip(texts, row[1:])), "label": -1, "idx": i}) for i, row in hidden],
        }

    return examples


def newsgroups20(members):
    splits = {"train": [], "test": []}
    for path, data in sorted(members.items()):
        found = re.fullmatch(r"20news-bydate-(train|test)/([^/]+)/([^/]+)", path)
        if not found or found[2] not in GROUPS:
            raise UserError(3, f"{path}: SPLIT/GROUP/NUMBER is wanted, of the twenty groups")
        split, group, number = found.groups()
        example = {"text": data.decode("latin-1"), "label": GROUPS.index(group)}
        splits[split].append((f"{group}/{number}", example))
    return splits


GROUPS = (
    "alt.atheism comp.graphics comp.os.ms-windows.misc comp.sys.ibm.pc.hardware comp.sys.mac.hardware comp.windows.x "
    "misc.forsale rec.autos rec.motorcycles rec.sport.baseball rec.sport.hockey sci.crypt sci.electronics sci.med "
    "sci.space soc.religion.christian talk.politics.guns talk.politics.mideast talk.politics.misc talk.religion.misc"
).split()


TYPES = ("corporation", "creative-work", "group", "location", "person", "product")
TAGS = ("O", *(f"{place}-{kind}" for kind in TYPES for place in "BI"))


def wnut_17(members):
    """Words and tags in columns, a word a line, sentences parted by blank lines."""

    def split(name):
        sentences, words = [], []
        for number, line in enumerate([*_lines(members, name), ""], 1):
            columns = line.strip().split("\t")
            if columns == [""]:
                sentences += [words] * bool(words)
                words = []
            elif len(columns) == 2 and columns[1] in TAGS:
                words.append((columns[0], TAGS.index(columns[1])))
            else:
                raise UserError(3, f"{name}: line {number} is not WORD<TAB>TAG, of the known tags: {line!r:.80}")
        examples = [dict(zip(("tokens", "tags"), map(list, zip(*words)))) for words in sentences]
        return list(enumerate(examples))

    return {
        "train": split("wnut17train.conll"),
        "validation": split("emerging.dev.conll"),
        "test": split("emerging.test.annotated"),
    }


ANSWERS = ("sequence", {"text": "text", "answer_start": "int32"})
SQUAD = {"id": "string", "title": "text", "context": "text", "question": "text", "answers": ANSWERS}


def squad(files):
    """Splits in SQuAD's JSON, version 1.1, a file each: {split: member}."""

    def split(members, member):
        found = []
        try:
            for article in json.loads(_text(members, member))["data"]:
                for paragraph in article["paragraphs"]:
                    for asked in paragraph["qas"]:
                        answers = [(answer["text"], answer["answer_start"]) for answer in asked["answers"]]
                        own = {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]}
                        example = {"id": asked["id"], "title": article["title"], "context": paragraph["context"]}
                        found.append((asked["id"], {**example, "question": asked["question"], "answers": own}))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(3, f"{member}: not SQuAD's JSON: {type(error).__name__}: {error}") from error
        return found

    return lambda members: {name: split(members, member) for name, member in files.items()}
