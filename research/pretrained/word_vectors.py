"""Word vectors in word2vec's two formats, as its C tool and gensim write and read them.

text     "V D\\n", then a line a word: the word, a blank and D numbers with blanks between them
binary   "V D\\n", then each word, a blank and D float32 (little-endian); the C tool ends each with a newline
"""

import os
import pathlib
import re
from typing import NamedTuple

import numpy as np

from research.data.reading import read_text
from research.errors import UserError


class Vectors(NamedTuple):
    """Words and their vectors, the frequent ones first by custom."""

    words: tuple[str, ...]  # no two the same
    matrix: np.ndarray  # float32[V, D]


def read(path, binary=None):
    """Vectors of a file.

    Args:
        binary: which format it is; by the name's ending (.bin), if not given.

    Raises:
        UserError: 3, for a file that is missing, damaged or says other than what it holds; with the place.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes() if _is_binary(path, binary) else read_text(path).encode()
    except OSError as error:
        raise UserError(3, f"{path}: cannot be read: {error.strerror}") from error
    count, width, start = _header(path, data, _is_binary(path, binary))
    rows = _binary_rows(path, data, start, count, width) if _is_binary(path, binary) else _text_rows(path, data, start)
    matrix, words = np.empty((count, width), np.float32), {}
    for i, (raw, vector) in enumerate(rows):
        at = f"{path}, word {i + 1} of {count}"
        try:
            word = raw.decode()
        except UnicodeDecodeError as error:
            raise UserError(3, f"{at}: {raw[:40]!r} is not UTF-8") from error
        if i == count:
            raise UserError(3, f"{path}: goes on after the {count} words that its header tells of: {word[:40]!r}")
        if not word or word in words:
            raise UserError(3, f"{at}: {f'{word[:40]!r} stands there twice' if word else 'it is empty'}")
        if len(vector) != width:
            raise UserError(3, f"{at}: {word[:40]!r} has {len(vector)} numbers; its header tells of {width}")
        words[word], matrix[i] = i, vector
        if not np.isfinite(matrix[i]).all():
            raise UserError(3, f"{at}: {word[:40]!r} has a number that is not finite")
    if len(words) < count:
        raise UserError(3, f"{path}: ends after {len(words)} of the {count} words that its header tells of")
    return Vectors(tuple(words), matrix)


def write(path, words, vectors, binary=None):
    """Writes a file that `read` and gensim read back to the same bits, in either format.

    Args:
        vectors: float[V, D]; kept as float32.
        binary: as for read.

    Raises:
        UserError: 3 for words or numbers that the formats cannot hold, 5 where the file cannot be written.
    """
    path, matrix = pathlib.Path(path), np.asarray(vectors, np.float32)
    if matrix.shape[0] != len(words) or len(set(words)) < len(words):
        raise UserError(
            3, f"{path}: {len(words)} words, {len(set(words))} of them different, for {len(matrix)} vectors"
        )
    if not np.isfinite(matrix).all():
        raise UserError(
            3, f"{path}: the vector of {words[np.flatnonzero(~np.isfinite(matrix).all(1))[0]]!r} is not finite"
        )
    parts = [f"{len(words)} {matrix.shape[1]}\n".encode()]
    for word, vector in zip(words, matrix):
        try:
            encoded = word.encode()
        except UnicodeEncodeError as error:
            raise UserError(3, f"{path}: {word!r} cannot be written as UTF-8") from error
        if not word or re.search(r"[ \t\n\r\f\v]", word):
            raise UserError(3, f"{path}: {word!r} cannot be written: a word has no blanks, and at least one character")
        if _is_binary(path, binary):
            parts += [encoded, b" ", vector.astype("<f4").tobytes()]
        else:  # the shortest digits that give the same float32 back
            parts += [encoded, b" ", " ".join(map(str, vector)).encode(), b"\n"]
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(b"".join(parts))
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise UserError(5, f"{path}: cannot be written: {error.strerror}") from error


def _is_binary(path, binary):
    return path.suffix == ".bin" if binary is None else binary


def _header(path, data, binary):
    """Words, numbers a word, and where the first word begins; believed only as far as the file is long enough."""
    line, newline, _ = data[:64].partition(b"\n")
    match = re.fullmatch(rb"([1-9]\d{0,9}) ([1-9]\d{0,6})\s?", line)
    if not match or not newline:
        raise UserError(3, f"{path}: begins with {line[:40]!r}, not with a line of two numbers: words, and their width")
    count, width = int(match[1]), int(match[2])
    least = count * ((4 if binary else 2) * width + 1)
    if len(data) - len(line) - 1 < least:
        raise UserError(
            3, f"{path}: {len(data)} bytes cannot hold the {count} words of {width} numbers that its header tells of"
        )
    return count, width, len(line) + 1


def _text_rows(path, data, start):
    for number, line in enumerate(data[start:].rstrip(b"\r\n").split(b"\n"), 2):
        word, *numbers = line.rstrip().split(b" ")
        try:
            yield word, [float(x) for x in numbers]
        except ValueError as error:
            raise UserError(3, f"{path}, line {number}: {error}") from error


def _binary_rows(path, data, start, count, width):
    for i in range(count):
        start += data[start : start + 1] == b"\n"  # the C tool's, behind the vector before
        blank = data.find(b" ", start, start + 10_000)
        end = blank + 1 + 4 * width
        if blank < 0 or end > len(data):
            raise UserError(3, f"{path}: ends, or is damaged, in word {i + 1} of the {count} that its header tells of")
        yield data[start:blank], np.frombuffer(data, "<f4", width, blank + 1)
        start = end
    if data[start:].strip(b"\n"):
        yield data[start : start + 40].split(b" ")[0], []
