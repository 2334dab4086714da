"""GNT: what is written is read back, and whatever the bytes are, each is a record's or reported damage."""

import hashlib
import math
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcr.charset import Charset
from hcr.corpus.archive import Folder
from hcr.corpus.gnt import GntPartition, encode_record, read_gnt
from hcr.corpus.sample import Damage, Sample
from hcr.errors import DataError


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def read(data: bytes) -> list[Sample | Damage]:
    return list(read_gnt(data, writer="1001-c", name="1001-c.gnt"))


def only_damage(data: bytes) -> Damage:
    (found,) = read(data)
    assert isinstance(found, Damage)
    return found


def record(size: int, tag: bytes, width: int, height: int, pixels: bytes) -> bytes:
    return struct.pack("<I2sHH", size, tag, width, height) + pixels


def test_the_bytes_of_a_record_are_those_of_the_format() -> None:
    data = encode_record("啊", np.array([[1, 2, 3], [4, 5, 255]], np.uint8))
    assert data == bytes([16, 0, 0, 0, 0xB0, 0xA1, 3, 0, 2, 0, 1, 2, 3, 4, 5, 255])


def test_records_come_back_in_order_with_their_offsets() -> None:
    chars, shapes = "一龟啊!", [(3, 5), (300, 2), (1, 1), (64, 260)]
    pictures = [picture(*shape, seed) for seed, shape in enumerate(shapes)]
    encoded = [encode_record(char, drawn) for char, drawn in zip(chars, pictures, strict=True)]
    samples = read(b"".join(encoded))
    offset = 0
    for sample, char, drawn, part in zip(samples, chars, pictures, encoded, strict=True):
        assert isinstance(sample, Sample)
        assert (sample.char, sample.writer, sample.origin) == (char, "1001-c", f"1001-c.gnt:{offset}")
        assert sample.picture.dtype == np.uint8
        np.testing.assert_array_equal(sample.picture, drawn)
        offset += len(part)


def test_pictures_are_views_into_the_file() -> None:
    data = encode_record("一", picture(4, 4))
    (sample,) = read(data)
    assert isinstance(sample, Sample)
    assert not sample.picture.flags.owndata
    assert not sample.picture.flags.writeable


def test_every_character_of_gb2312_survives() -> None:
    characters = Charset.gb2312().characters
    data = b"".join(encode_record(char, picture(1, 1)) for char in characters)
    assert "".join(s.char for s in read(data) if isinstance(s, Sample)) == characters


@pytest.mark.parametrize(("tag", "char"), [(b"!\0", "!"), (b"9\0", "9"), (b"\xa1\xa4", "·"), (b"\xa1\xaa", "—")])
def test_symbols_are_read_by_gbk(tag: bytes, char: str) -> None:
    (sample,) = read(record(11, tag, 1, 1, b"\0"))
    assert isinstance(sample, Sample)
    assert sample.char == char


@pytest.mark.parametrize("char", ["😀", "", "一二", "ab", "\u3000", "\n", "\x00", "!\0"])
def test_what_is_no_gbk_character_is_not_written(char: str) -> None:
    with pytest.raises(DataError, match="has no GBK code"):
        encode_record(char, picture(2, 2))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 2)), np.zeros((2, 2, 1), np.uint8), np.zeros((0, 4), np.uint8), np.zeros((1, 65536), np.uint8)],
    ids=lambda wrong: f"{wrong.dtype}{wrong.shape}",
)
def test_what_is_no_gnt_picture_is_not_written(wrong: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected uint8\[H, W\] of 1 to 65535 a side"):
        encode_record("一", wrong)


GOOD = encode_record("一", picture(3, 5))


def test_a_truncated_header_ends_the_file() -> None:
    sample, damage = read(GOOD + GOOD[:7])
    assert isinstance(sample, Sample)
    assert damage == Damage(
        "1001-c.gnt:25",
        7,
        "1001-c.gnt: byte 25: a header cut short, expected 10 bytes, found 7; "
        "fetch the file again, or pack with --skip-damaged to leave out the rest of the file",
    )


def test_a_truncated_picture_ends_the_file() -> None:
    sample, damage = read(GOOD + GOOD[:-1])
    assert isinstance(sample, Sample)
    assert isinstance(damage, Damage)
    assert (damage.origin, damage.length) == ("1001-c.gnt:25", 24)
    assert "byte 25: a picture cut short, expected a record of 25 bytes, found 24;" in damage.message


@pytest.mark.parametrize("size", [0, 10, 24, 26, 0xFFFFFFFF])
def test_a_size_that_disagrees_ends_the_file_and_both_numbers_are_named(size: int) -> None:
    damage = only_damage(record(size, b"\xd2\xbb", 5, 3, bytes(15)) + GOOD)
    assert damage.length == 50
    assert f"byte 0: record size {size}, expected 10 + 5 × 3 = 25;" in damage.message


def test_a_size_right_modulo_256_only_is_still_damage() -> None:
    """The parser that most projects copy adds the size up in uint8 and lets this pass."""
    damage = only_damage(record((10 + 30 * 20) % 256, b"\xd2\xbb", 30, 20, bytes(600)))
    assert "record size 98, expected 10 + 30 × 20 = 610" in damage.message


@pytest.mark.parametrize(("width", "height"), [(0, 3), (5, 0), (0, 0)])
def test_a_picture_without_width_or_height_ends_the_file(width: int, height: int) -> None:
    damage = only_damage(record(10, b"\xd2\xbb", width, height, b"") + GOOD)
    assert damage.length == 35
    assert f"byte 0: a picture of {width} × {height} pixels, expected at least 1 × 1;" in damage.message


@pytest.mark.parametrize("tag", [b"\xff\xff", b"\x80\0", b"\0\0", b"ab", b"\0!", b"\n\0", b"\xa1\xa1"])
def test_an_unassigned_tag_is_stepped_over(tag: bytes) -> None:
    damage, sample = read(record(13, tag, 3, 1, b"abc") + GOOD)
    assert isinstance(damage, Damage)
    assert (damage.origin, damage.length) == ("1001-c.gnt:0", 13)
    assert f"byte 0: tag {tag.hex(' ')}, expected the GBK code of a character;" in damage.message
    assert "--skip-damaged to leave out this record" in damage.message
    assert isinstance(sample, Sample)
    assert sample.origin == "1001-c.gnt:13"


def test_an_empty_file_is_damage_too() -> None:
    damage = only_damage(b"")
    assert damage.length == 0
    assert "byte 0: an empty file" in damage.message


def account_for_every_byte(data: bytes) -> None:
    position = 0
    for found in read(data):
        assert found.origin == f"1001-c.gnt:{position}"
        if isinstance(found, Damage):
            assert "\n" not in found.message
            position += found.length
        else:
            assert len(found.char) == 1
            assert found.picture.tobytes() == data[position + 10 : position + 10 + found.picture.size]
            position += 10 + found.picture.size
    assert position == len(data)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_accounted_for(data: bytes) -> None:
    account_for_every_byte(data)


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    """Draw a valid file and overwrite, cut out or put in a few bytes, most of them in headers."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=6))
    data = bytearray()
    starts = []
    for seed, shape in enumerate(shapes):
        starts.append(len(data))
        data += encode_record(draw(st.sampled_from("一龟啊!口")), picture(*shape, seed))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.sampled_from(starts)) + draw(st.integers(0, 12))
        removed = draw(st.integers(0, 3))
        data[at : at + removed] = draw(st.binary(max_size=3))
    return bytes(data)


@given(mutated_files())
def test_mutated_files_are_accounted_for(data: bytes) -> None:
    account_for_every_byte(data)


@pytest.fixture
def partition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GntPartition]:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "1001-c.gnt").write_bytes(GOOD + GOOD)
    yield GntPartition("1001-c.gnt", "train", "1001-c", 50, Folder(folder), "1001-c.gnt")


def test_a_partition_reads_its_file_and_digests_all_of_it(partition: GntPartition) -> None:
    digest = hashlib.sha256()
    assert [found.origin for found in partition.samples(digest)] == ["1001-c.gnt:0", "1001-c.gnt:25"]
    assert digest.hexdigest() == hashlib.sha256(GOOD + GOOD).hexdigest()


def test_a_file_that_is_gone_is_damage_of_its_whole_size(partition: GntPartition) -> None:
    (partition.place.path / partition.file).unlink()
    (damage,) = partition.samples(hashlib.sha256())
    assert isinstance(damage, Damage) and partition.changed() == math.inf
    assert (damage.origin, damage.length) == ("1001-c.gnt:0", 50)
    assert "1001-c.gnt: cannot be read (No such file or directory); download it again" in damage.message
