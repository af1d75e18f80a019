"""Reads the text files that users supply: UTF-8 without its byte order mark; a line ends at \\n or \\r\\n alone."""

import codecs
import pathlib

from research.errors import UserError

# UTF-32 first: its little-endian mark starts with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path):
    """Returns the text of a file.

    Raises:
        UserError: 3, for a file that cannot be read or is not UTF-8, with the place.
    """
    return "".join(read_blocks(path))


def read_lines(path, pipe=False):
    """Returns the lines of a file as a list, without their ends; see `read_blocks`."""
    return split_lines("".join(read_blocks(path, pipe=pipe)))


def split_lines(text):
    """Returns the lines of a text. str.splitlines would also split at a lone \\r, a form feed, U+2028 and others."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def read_blocks(path, size=1 << 20, pipe=False):
    """Yields the text of a file in blocks of `size` bytes; see `read_text`.

    Args:
        pipe: whether the file may be a pipe, which is waited for until someone writes to it.
    """
    path, decoder = pathlib.Path(path), codecs.getincrementaldecoder("utf-8")()
    try:
        if not pipe and path.is_fifo():
            raise UserError(3, f"{path}: a pipe; a file is needed here")
        with path.open("rb") as file:
            offset, lines = _skip_mark(file, path), 0
            while data := file.read(size):
                yield _decoded(decoder, data, path, offset, lines)
                offset, lines = offset + len(data), lines + data.count(b"\n")
            _decoded(decoder, b"", path, offset, lines)
    except OSError as error:
        raise UserError(3, f"{path}: cannot be read: {error.strerror}") from error


def _skip_mark(file, path):
    """Skips a byte order mark; returns its length."""
    first = file.peek(4)
    for mark, name in MARKS.items():
        if first.startswith(mark):
            raise UserError(3, f"{path}: is {name}, not UTF-8; convert it, as with iconv -f {name} -t UTF-8")
    return len(file.read(len(codecs.BOM_UTF8))) if first.startswith(codecs.BOM_UTF8) else 0


def _decoded(decoder, data, path, offset, lines):
    """Decodes the bytes at an offset of a file, after so many complete lines; no bytes end it."""
    held = len(decoder.getstate()[0])  # bytes of a character that continues in this block
    try:
        place, reason = data.find(b"\0"), "is 0: the file is UTF-16, or not text; convert it, as with iconv -t UTF-8"
        if place < 0:
            return decoder.decode(data, final=not data)
    except UnicodeDecodeError as error:
        place, reason = error.start - held, "is not UTF-8; convert the file, as with iconv -f ISO-8859-1 -t UTF-8"
    line = lines + data.count(b"\n", 0, max(place, 0)) + 1
    raise UserError(3, f"{path}: byte {offset + place} (line {line}) {reason}")
