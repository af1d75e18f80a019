"""The reader of users' text files: what a line is, which bytes are text, and where those that are not stand."""

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.reading import read_blocks, read_lines, read_text, split_lines
from research.errors import UserError


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))), size=st.integers(1, 9))
def test_a_file_is_its_text_whatever_the_blocks(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    for mark in ("", "\ufeff"):
        path.write_bytes((mark + text).encode())
        expected = text if mark else text.removeprefix("\ufeff")
        assert "".join(read_blocks(path, size)) == read_text(path) == expected


def test_a_pipe_is_read_where_a_flag_names_it_and_refused_in_a_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a pipe; a file is needed here") as error:
        read_lines(tmp_path / "pipe")
    assert error.value.code == 3
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("one\ntwo\n",))
    writer.start()
    assert read_lines(tmp_path / "pipe", pipe=True) == ["one", "two"]
    writer.join()


def test_lines_end_at_a_line_feed_with_or_without_a_carriage_return_and_nowhere_else():
    assert split_lines("a\r\nb\rc\n\nd\x0b\x0c\x1c\x85\u2028e\n") == ["a", "b\rc", "", "d\x0b\x0c\x1c\x85\u2028e"]
    assert split_lines("") == [] and split_lines("\n") == [""] and split_lines("a") == ["a"]


@pytest.mark.parametrize(
    "data,part",
    [
        ("h\u00e9\n".encode("utf-16"), "is UTF-16, not UTF-8"),
        ("h\u00e9\n".encode("utf-32"), "is UTF-32, not UTF-8"),
        (b"a\nb\n\xffc", "byte 4 (line 3) is not UTF-8"),
        (b"\xef\xbb\xbfa\nb\n\xffc", "byte 7 (line 3) is not UTF-8"),
        (b"ab\xc3", "byte 2 (line 1) is not UTF-8"),
        (b"\xc3\n", "byte 0 (line 1) is not UTF-8"),
        ("gr\u00fcn".encode("latin-1"), "byte 2 (line 1) is not UTF-8"),
        (b"a\n\0", "byte 2 (line 2) is 0: the file is UTF-16, or not text"),
    ],
)
def test_what_is_not_utf8_is_refused_with_its_place_whatever_the_blocks(tmp_path, data, part):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    for size in (1, 2, 3, 1 << 23):
        with pytest.raises(UserError) as error:
            list(read_blocks(path, size))
        assert error.value.code == 3 and str(error.value).startswith(f"{path}: {part}"), size
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_lines(tmp_path)
