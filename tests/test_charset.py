"""The charset: its order, its digest, and the three kinds of file it is read from."""

import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcr.charset import Charset
from hcr.errors import DataError


def test_level_1_is_the_numbering_of_the_tutorials_folders() -> None:
    level1 = Charset.level1()
    assert len(level1) == 3755
    assert (level1[0], level1[1], level1[3754]) == ("一", "丁", "龟")
    assert "啊" in level1
    assert "亍" not in level1  # the first of level 2 by code point


def test_gb2312_holds_both_levels() -> None:
    both = Charset.gb2312()
    assert len(both) == 6763
    assert set(Charset.level1().characters) < set(both.characters)


def test_order_is_by_code_point_whatever_comes_in() -> None:
    charset = Charset(["龟", "一", "丁", "一"])
    assert charset.characters == "一丁龟"
    assert [charset.label(char) for char in "一丁龟"] == [0, 1, 2]
    assert charset == Charset("一丁龟")
    assert hash(charset) == hash(Charset("一丁龟"))


def test_a_character_without_a_label_is_named() -> None:
    with pytest.raises(DataError, match=r"'丂' \(U\+4E02\) is not among its 3 characters"):
        Charset("一丁龟").label("丂")


@pytest.mark.parametrize("entry", ["", "一丁", "\ud800"])
def test_an_entry_that_is_not_one_character_is_refused(entry: str) -> None:
    with pytest.raises(DataError, match="is not one character"):
        Charset(["一", entry])


def test_an_empty_charset_is_refused() -> None:
    with pytest.raises(DataError, match="no characters"):
        Charset([])


def test_the_digest_tells_charsets_apart() -> None:
    assert Charset("一丁").digest == Charset("丁一").digest
    assert Charset("一丁").digest != Charset("一七").digest
    assert len(Charset("一").digest) == 16


def test_two_charsets_that_differ_are_refused_with_the_first_difference() -> None:
    one, other = Charset("一丁七"), Charset("一七")
    one.require_same(Charset("七丁一"), "a", "b")
    with pytest.raises(DataError) as caught:
        one.require_same(other, "the checkpoint", "the pack")
    message = str(caught.value)
    assert message == (
        f"the checkpoint has another charset (3 characters, {one.digest}) than the pack "
        f"(2, {other.digest}): label 1 is '丁' against '七'"
    )
    with pytest.raises(DataError, match="label 2 is '七' against nothing"):
        Charset("一丁七").require_same(Charset("一丁"), "a", "b")


@pytest.mark.parametrize("name", ["set.json", "set.txt"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    Charset.level1().write(tmp_path / name)
    assert Charset.read(tmp_path / name) == Charset.level1()
    assert Charset.named(str(tmp_path / name)) == Charset.level1()


def test_names_give_the_two_standard_charsets() -> None:
    assert Charset.named("level1") == Charset.level1()
    assert Charset.named("gb2312") == Charset.gb2312()


@pytest.mark.parametrize(
    "raw",
    [
        "龟\n一\n\n丁\n".encode(),
        "\ufeff龟\r\n一\r\n丁\r\n".encode(),
        '["龟", "一", "丁"]'.encode(),
        b'{"characters": "\\u9f9f\\u4e00\\u4e01"}',
    ],
    ids=["text", "text of Windows", "list", "object"],
)
def test_text_and_json_are_read(raw: bytes) -> None:
    assert Charset.parse(raw, "set").characters == "一丁龟"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("一\n丁七\n".encode(), "set: line 2 has 2 characters, expected one a line"),
        (b"\xb0\xa1\n", "set: byte 0 is not UTF-8"),
        (b"\n\n", "set: holds no characters"),
        (b"[", "set: not JSON"),
        (b"[" * 100_000, "set: not JSON"),
        (b'{"chars": "x"}', "set: expected"),
        (b"[1, 2]", "set: expected"),
        (b"[]", "set: holds no characters"),
        ('["一", "丁七"]'.encode(), "set: '丁七' is not one character"),
        (b'["\\ud800"]', "is not one character"),
    ],
)
def test_what_is_no_charset_is_refused_by_name(raw: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        Charset.parse(raw, "set")
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"charset 'levl1': no such name or file; name level1, gb2312, or a file of"):
        Charset.named("levl1")
    with pytest.raises(DataError, match=r"none\.txt: cannot read a charset \(No such file"):
        Charset.read(tmp_path / "none.txt")


def char_dict(characters: str) -> bytes:
    return pickle.dumps({char: index for index, char in enumerate(characters)}, protocol=0)


def test_the_tutorials_char_dict_is_read() -> None:
    raw = char_dict(Charset.level1().characters)
    assert Charset.parse(raw, "char_dict") == Charset.level1()
    assert Charset.parse(raw.replace(b"\n", b"\r\n"), "char_dict") == Charset.level1()


def test_a_char_dict_in_another_order_is_refused() -> None:
    for characters in ("丁一", "一七丁"):
        with pytest.raises(DataError, match="not 0, 1, 2 … in code-point order"):
            Charset.parse(char_dict(characters), "char_dict")
    doubled = b"(dp0\nV\\u4e00\np1\nI0\nsV\\u4e00\np2\nI1\ns."
    with pytest.raises(DataError, match="not 0, 1, 2 … in code-point order"):
        Charset.parse(doubled, "char_dict")


def test_a_char_dict_that_could_run_code_is_refused_unrun(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "trap"),)

    raw = pickle.dumps({"一": Trap()}, protocol=0)
    with pytest.raises(DataError, match=r"byte \d+ is the pickle opcode GLOBAL"):
        Charset.parse(raw, "char_dict")
    assert not list(tmp_path.iterdir())


@given(st.binary(max_size=60))
def test_arbitrary_bytes_after_the_mark_of_a_char_dict_raise_only_our_error(tail: bytes) -> None:
    try:
        Charset.parse(b"(d" + tail, "char_dict")
    except DataError as error:
        assert str(error).startswith("char_dict: ")


@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_only_our_error(raw: bytes) -> None:
    try:
        Charset.parse(raw, "set")
    except DataError as error:
        assert str(error).startswith("set: ")


def test_the_json_says_what_it_is(tmp_path: Path) -> None:
    Charset("一丁").write(tmp_path / "set.json")
    value = json.loads((tmp_path / "set.json").read_text("utf-8"))
    assert value == {"characters": "一丁", "count": 2, "digest": Charset("一丁").digest}


@pytest.mark.parametrize("char", ["", "ab", "永永"])
def test_a_label_is_of_one_character(char: str) -> None:
    with pytest.raises(DataError, match=f"charset: '{char}' is not one character"):
        Charset.level1().label(char)
