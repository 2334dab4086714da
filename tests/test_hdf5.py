"""HDF5 as it goes around: what labels mean, which paper, splits and writers, damage, and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from hcr.charset import Charset
from hcr.cli.data import main
from hcr.corpus.find import find_corpus
from hcr.corpus.sample import Corpus, Damage, Sample
from hcr.errors import DataError

LEVEL1 = Charset.level1()
GB2312 = "".join(sorted(LEVEL1.characters, key=lambda char: char.encode("gb2312")))
CHARS = "丁一七啊"


def picture(char: str, size: int = 32) -> np.ndarray:
    """A bar for 一, and two crossing bars, grey at their ends, for anything else."""
    pixels = np.full((size, size), 255, np.uint8)
    pixels[size // 2 : size // 2 + 3, 4:-4] = 20
    if char != "一":
        pixels[4:-4, size // 2 : size // 2 + 3] = 90
    return pixels


def pictures(chars: str, size: int = 32) -> np.ndarray:
    return np.stack([picture(char, size) for char in chars])[:, None]


def tags(chars: str) -> np.ndarray:
    return np.array([int.from_bytes(char.encode("gbk"), "big") for char in chars], np.uint16)


def numbers(chars: str, order: Sequence[str] = LEVEL1.characters) -> np.ndarray:
    return np.array([order.index(char) for char in chars], np.uint16)


def write(path: Path, groups: dict[str, dict[str, Any]], **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        for group, arrays in groups.items():
            for name, array in arrays.items():
                file[f"{group}/{name}"] = array
    return path


def find(*paths: Path) -> Corpus:
    return find_corpus(paths, allowed=LEVEL1, numbering=LEVEL1)


def read(corpus: Corpus) -> list[Sample | Damage]:
    return [found for partition in corpus.partitions for found in partition.samples(hashlib.sha256())]


def chars(corpus: Corpus) -> str:
    return "".join(found.char for found in read(corpus) if isinstance(found, Sample))


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        find(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Labels


@pytest.mark.parametrize(
    ("labels", "how"),
    [
        (numbers(CHARS), "numbers in code-point order (0 is 一)"),
        (numbers(CHARS).astype(np.int64)[:, None], "numbers in code-point order (0 is 一)"),
        (np.eye(3755, dtype=np.uint16)[numbers(CHARS)], "numbers in code-point order (0 is 一)"),
        (np.eye(3755, dtype=np.float32)[numbers(CHARS)], "numbers in code-point order (0 is 一)"),
        (numbers(CHARS, GB2312), "numbers in GB2312 order (0 is 啊), as the pictures of 一 show"),
        (tags(CHARS), "GBK codes"),
        (tags(CHARS)[:, None], "GBK codes"),
        (np.frombuffer(CHARS.encode("gbk"), np.uint8).reshape(-1, 2), "GBK codes"),
    ],
)
def test_labels_of_every_kind(tmp_path: Path, labels: np.ndarray, how: str) -> None:
    corpus = find(write(tmp_path / "a.hdf5", {"trn": {"x": pictures(CHARS), "y": labels}}))
    assert chars(corpus) == CHARS
    assert corpus.layout == f"4 pictures of 32 × 32 pixels on white in HDF5, labelled by {how} (train 4)"


def test_numbers_without_yi_count_in_code_point_order(tmp_path: Path) -> None:
    corpus = find(write(tmp_path / "a.h5", {"trn": {"x": pictures("丁七"), "y": numbers("丁七")}}))
    assert chars(corpus) == "丁七"


def test_an_order_that_cannot_be_told_is_refused_until_the_file_has_a_list(tmp_path: Path) -> None:
    order = LEVEL1.characters[1:] + "一"
    content = {"trn": {"x": pictures("一丁七啊"), "y": numbers("一丁七啊", order)}}
    path = write(tmp_path / "a.h5", content)
    assert refusal(path).startswith(f"{path}: labels are numbers in an order that cannot be told")
    with h5py.File(path, "a") as file:
        file.attrs["characters"] = order
    corpus = find(path)
    assert chars(corpus) == "一丁七啊"
    assert "numbers into the file's own list of 3,755 characters" in corpus.layout


@pytest.mark.parametrize("listed", ["啊丁一七", list("啊丁一七"), [char.encode() for char in "啊丁一七"]])
def test_the_files_own_list_counts_in_its_own_order(tmp_path: Path, listed: Any) -> None:
    content = {"trn": {"x": pictures(CHARS), "y": numbers(CHARS, "啊丁一七")}}
    assert chars(find(write(tmp_path / "attribute.h5", content, characters=listed))) == CHARS
    path = write(tmp_path / "array.h5", content)
    with h5py.File(path, "a") as file:
        file["characters"] = listed
    assert chars(find(path)) == CHARS


def test_a_changed_list_is_told_by_its_digest(tmp_path: Path) -> None:
    content = {"trn": {"x": pictures(CHARS), "y": numbers(CHARS, CHARS)}}
    path = write(tmp_path / "a.h5", content, characters=CHARS, charset_digest=Charset("一丁七").digest)
    assert f"digest {Charset(CHARS).digest}, expected {Charset('一丁七').digest}; download it again" in refusal(path)


def test_the_layout_with_bitmaps_tag_codes_and_writers(tmp_path: Path) -> None:
    channels_last = np.repeat(pictures("一丁").transpose(0, 2, 3, 1), 20, axis=0)
    codes = np.repeat(np.array([[1001], [1002]], np.uint16), 20, axis=0)
    content = {"bitmap": channels_last, "tagcode": np.repeat(tags("一丁")[:, None], 20, axis=0), "writercode": codes}
    corpus = find(write(tmp_path / "HWDB1.1.hdf5", {"trn": content}))
    assert corpus.name == "hwdb1.1"
    assert chars(corpus) == "一" * 20 + "丁" * 20
    assert [partition.writer for partition in corpus.partitions] == ["1001", "1002"]


def test_codes_of_the_test_group_teach_the_numbers_of_the_others(tmp_path: Path) -> None:
    one_hot = np.eye(4, dtype=np.uint16)
    content = {
        "trn": {"x": pictures(CHARS), "y": one_hot[[2, 0, 1, 3]]},
        "vld": {"x": pictures("啊"), "y": one_hot[[3]]},
        "tst": {"x": pictures(CHARS[::-1]), "y": one_hot[[3, 1, 0, 2]], "t": tags(CHARS[::-1])[:, None]},
    }
    corpus = find(write(tmp_path / "subset.hdf5", content))
    found = {
        partition.split: "".join(s.char for s in partition.samples(hashlib.sha256())) for partition in corpus.partitions
    }
    assert found == {"train": CHARS, "val": "啊", "test": CHARS[::-1]}
    assert "numbers whose GBK codes stand beside them in another group" in corpus.layout
    content["tst"]["t"] = tags("啊啊丁丁")[:, None]
    content["tst"]["y"] = one_hot[[0, 1, 1, 2]]
    assert "tst: label 1 is 啊 and 丁 by the GBK codes in t" in refusal(
        write(tmp_path / "wrong.hdf5", content)
    ).replace("丁 and 啊", "啊 and 丁")


def test_a_label_beyond_the_characters_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"trn": {"x": pictures("丁七"), "y": np.array([1, 3755])}})
    assert refusal(path) == (
        f"{path}/trn/y: label 3755 of sample 1, but the numbers count through 3,755 characters, 0 to 3754; "
        "name the charset that they number with --charset"
    )


# Pictures


@pytest.mark.parametrize(
    ("change", "paper"), [(lambda x: x, "white"), (lambda x: ~x, "black"), (lambda x: x - x // 20, "several kinds")]
)
def test_pictures_come_out_on_white(tmp_path: Path, change: Callable[[Any], Any], paper: str) -> None:
    corpus = find(write(tmp_path / "a.h5", {"trn": {"x": change(pictures(CHARS)), "y": tags(CHARS)}}))
    assert f"on {paper} in HDF5" in corpus.layout or f"on paper of {paper} in HDF5" in corpus.layout
    for found, expected in zip(read(corpus), pictures(CHARS)[:, 0], strict=True):
        assert isinstance(found, Sample)
        np.testing.assert_allclose(found.picture.astype(int), expected, atol=3)
        assert found.picture[0, 0] == 255


@pytest.mark.parametrize("shape", [(-1, 32, 32), (-1, 1, 32, 32), (-1, 32, 32, 1)])
def test_shapes_that_go_around(tmp_path: Path, shape: tuple[int, ...]) -> None:
    corpus = find(write(tmp_path / "a.h5", {"tst": {"x": pictures(CHARS).reshape(shape), "y": tags(CHARS)}}))
    for found, char in zip(read(corpus), CHARS, strict=True):
        assert isinstance(found, Sample)
        np.testing.assert_array_equal(found.picture, picture(char))


def test_pictures_that_are_not_square_keep_their_shape(tmp_path: Path) -> None:
    corpus = find(write(tmp_path / "a.h5", {"tst": {"x": pictures(CHARS)[:, :, 8:], "y": tags(CHARS)}}))
    assert "pictures of 32 × 24 pixels" in corpus.layout
    assert all(isinstance(found, Sample) and found.picture.shape == (24, 32) for found in read(corpus))


# Units


def test_units_are_ranges_that_name_their_samples(tmp_path: Path) -> None:
    count = 5000
    x = np.broadcast_to(picture("丁", 16), (count, 1, 16, 16))
    content = {"x": x, "y": np.full(count, int(tags("丁")[0]), np.uint16)}
    corpus = find(write(tmp_path / "a.h5", {"Train": content, "test": {"x": x[:3], "y": content["y"][:3]}}))
    assert [(partition.name, partition.split, partition.size) for partition in corpus.partitions] == [
        ("a.h5/Train:00000000", "train", 4096 * 258),
        ("a.h5/Train:00004096", "train", 904 * 258),
        ("a.h5/test:00000000", "test", 3 * 258),
    ]
    origins = [found.origin for found in read(corpus)]
    assert origins == [f"a.h5/Train:{index}" for index in range(count)] + [f"a.h5/test:{index}" for index in range(3)]
    digest = hashlib.sha256()
    list(corpus.partitions[2].samples(digest))
    assert digest.digest() == hashlib.sha256(x[:3].tobytes() + content["y"][:3].tobytes()).digest()


def test_units_are_read_in_other_processes(tmp_path: Path) -> None:
    corpus = find(write(tmp_path / "a.h5", {"trn": {"x": pictures(CHARS), "y": tags(CHARS)}}))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(chars, corpus).result() == CHARS


def test_writers_of_a_shuffled_file_are_not_taken(tmp_path: Path) -> None:
    content = {"x": np.repeat(pictures("丁"), 200, 0), "y": np.repeat(tags("丁"), 200)}
    together = find(write(tmp_path / "a.h5", {"trn": content | {"writercode": np.arange(200) // 100}}))
    assert [(partition.writer, partition.name) for partition in together.partitions] == [
        ("0", "a.h5/trn:00000000"),
        ("1", "a.h5/trn:00000100"),
    ]
    shuffled = find(write(tmp_path / "b.h5", {"trn": content | {"writercode": np.arange(200) % 2}}))
    assert [partition.writer for partition in shuffled.partitions] == [""]


# What is refused


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"weights": {"x": pictures("丁")}},
            ": holds weights; expected the groups trn, vld, tst (or train, val, test)",
        ),
        ({"trn": {"x": pictures("丁")}}, "/trn: holds x; expected pictures x and labels y"),
        ({"trn": {"y": tags("丁")}}, "/trn: holds y; expected pictures x and labels y"),
        ({"trn": {"x": pictures("丁七"), "y": tags("丁")}}, "/trn: 2 pictures, but 1 label in y"),
        (
            {"trn": {"x": pictures("丁") / 255, "y": tags("丁")}},
            "/trn/x: float64[1, 1, 32, 32]; expected pictures uint8",
        ),
        ({"trn": {"x": pictures("丁")[0, 0], "y": tags("丁" * 32)}}, "/trn/x: uint8[32, 32]; expected pictures uint8"),
        ({"trn": {"x": pictures("丁"), "y": np.array([0.5])}}, "/trn/y: labels are float64[N]; expected whole numbers"),
        ({"trn": {"x": pictures("丁"), "y": np.ones((1, 5), int)}}, "/trn/y: labels are int64[N, 5]; expected whole"),
        ({"trn": {"x": pictures("丁"), "y": [b"ab"]}}, "/trn/y: labels are object[N]; expected whole numbers"),
        ({"trn": {"x": pictures("丁"), "y": 1}}, "/trn/y: not an array of labels"),
        ({"trn": {"x": pictures("丁")[:0], "y": tags("")}}, ": holds no picture"),
        (
            {"trn": {"x": pictures("丁"), "y": tags("丁"), "writer": [1], "writers": ["a"]}},
            "/trn/writer: writer 1, but the list `writers` has 1",
        ),
        ({"trn": {"x": pictures("丁"), "y": tags("丁"), "writer": [1, 2]}}, "/trn/writer: int64[2], expected whole"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, groups: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.h5", groups)
    assert refusal(path).startswith(f"{path}{message}")


def test_a_list_of_words_is_no_list_of_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"trn": {"x": pictures("丁"), "y": [0]}}, characters=["yi", "ding"])
    assert f"{path}: its list `characters` (charset: 'yi' is not one character)" in refusal(path)


def test_what_is_no_hdf5_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"not HDF5")
    assert refusal(path).startswith(f"{path}: not an HDF5 file, or damaged (")
    whole = write(tmp_path / "b.h5", {"trn": {"x": pictures(CHARS), "y": tags(CHARS)}})
    whole.write_bytes(whole.read_bytes()[:-100])
    assert "truncated file" in refusal(whole)


def test_without_h5py_the_extra_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"trn": {"x": pictures(CHARS), "y": tags(CHARS)}})
    code = "import sys; sys.modules['h5py'] = None; from hcr.cli.data import main; main()"
    run = subprocess.run([sys.executable, "-c", code, "pack", str(path)], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr == "error: HDF5 files need the package h5py; install it with: pip install 'hcr[hdf5]'\n"


# Damage


@pytest.mark.parametrize("guard", [{"fletcher32": True}, {"compression": "gzip"}])
def test_a_damaged_chunk_is_damage_and_the_rest_is_read(tmp_path: Path, guard: dict[str, Any]) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("trn/x", data=np.repeat(pictures("丁"), 900, 0), chunks=(9, 1, 32, 32), **guard)
        file["trn/y"] = np.repeat(tags("丁"), 900)
        chunk = file["trn/x"].id.get_chunk_info(1)
    with open(path, "r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\x55" * 50)
    corpus = find(path)
    found = read(corpus)
    damage = [one for one in found if isinstance(one, Damage)]
    assert len(found) == 900
    assert [one.origin for one in damage] == [f"a.h5/trn:{index}" for index in range(9, 18)]
    assert all(one.length == 32 * 32 + 2 for one in damage)
    assert damage[0].message.startswith("a.h5/trn: sample 9: ")
    assert damage[0].message.endswith("; fetch the file again, or pack with --skip-damaged to leave it out")
    command = ["pack", str(path), "--size", "32", "--out", str(tmp_path / "p")]
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 3
    assert "error: a.h5/trn: sample 9: " in run.output
    assert "left out: 9 damaged" in CliRunner().invoke(main, [*command, "--skip-damaged"]).output


def test_a_file_that_is_gone_is_damage(tmp_path: Path) -> None:
    corpus = find(path := write(tmp_path / "a.h5", {"trn": {"x": pictures(CHARS), "y": tags(CHARS)}}))
    path.unlink()
    (damage,) = read(corpus)
    assert isinstance(damage, Damage)
    assert (damage.origin, damage.length) == ("a.h5/trn:0", corpus.partitions[0].size)
    assert "a.h5/trn: samples 0 to 3: " in damage.message


def test_samples_that_are_gone_are_damage_and_the_others_are_read(tmp_path: Path) -> None:
    corpus = find(path := write(tmp_path / "a.h5", {"trn": {"x": pictures(CHARS), "y": tags(CHARS)}}))
    write(path, {"trn": {"x": pictures(CHARS[:3]), "y": tags(CHARS[:3])}})
    *samples, damage = read(corpus)
    assert [found.char for found in samples if isinstance(found, Sample)] == list(CHARS[:3])
    assert isinstance(damage, Damage)
    assert "sample 3: gone since the file was recognised, which now has 3 pictures" in damage.message


def test_a_code_that_means_no_character_is_damage(tmp_path: Path) -> None:
    corpus = find(write(tmp_path / "a.h5", {"trn": {"x": pictures("丁七"), "tagcode": [int(tags("丁")[0]), 0xFFFF]}}))
    good, bad = read(corpus)
    assert isinstance(good, Sample)
    assert isinstance(bad, Damage)
    assert "a.h5/trn: sample 1: label 65535 means no character" in bad.message
