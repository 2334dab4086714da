"""Recognition: what lies in files, folders and zips, which split it is, and one clear line where it cannot be told."""

import hashlib
import os
import pickle
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcr.charset import Charset
from hcr.corpus.sample import Damage, Sample
from hcr.errors import DataError, UsageError
from tests.layouts import find, gnt, lay, lay_hdf5, lay_zip, png, read, refusal, splits

REAL = Path(__file__).parents[2] / "shared" / "real"


# GNT


def test_gnt_files_are_found_below_and_sorted(tmp_path: Path) -> None:
    corpus = find(lay(tmp_path / "mine", "b/2.gnt", "b/10.gnt", "a/z.GNT", "x.gnt"))
    assert [partition.name for partition in corpus.partitions] == ["a/z.GNT", "b/10.gnt", "b/2.gnt", "x.gnt"]
    assert [partition.writer for partition in corpus.partitions] == ["z", "10", "2", "x"]
    assert {partition.size for partition in corpus.partitions} == {len(gnt())}
    assert corpus.name == "mine"
    assert corpus.layout == "4 GNT files (4 not in a train/val/test folder)"
    assert [sample.origin for sample in read(corpus)][:2] == ["a/z.GNT:0", "a/z.GNT:22"]


def test_records_outside_the_charset_are_left_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "a.gnt").write_bytes(gnt("!一"))
    chars = [found.char for found in read(find(tmp_path, allowed=Charset("丁"))) if isinstance(found, Sample)]
    assert chars == ["!", "一"]


@pytest.mark.parametrize("word", ["train", "Train", "trn", "TRAINING"])
def test_folders_name_their_split(tmp_path: Path, word: str) -> None:
    corpus = find(lay(tmp_path, f"{word}/w1/a.gnt", "Tst/b.gnt", "validation/c.gnt", "other/d.gnt"))
    assert splits(corpus) == {
        f"{word}/w1/a.gnt": "train",
        "Tst/b.gnt": "test",
        "validation/c.gnt": "val",
        "other/d.gnt": None,
    }
    assert corpus.layout == "4 GNT files (test 1, train 1, val 1, 1 not in a train/val/test folder)"


def test_the_nearest_folder_names_the_split_and_those_above_the_corpus_do_not(tmp_path: Path) -> None:
    root = lay(tmp_path / "test" / "mine", "a.gnt", "train/b.gnt", "train/test/c.gnt")
    assert splits(find(root)) == {"a.gnt": None, "train/b.gnt": "train", "train/test/c.gnt": "test"}
    assert splits(find(root / "train")) == {"b.gnt": "train", "test/c.gnt": "test"}
    assert find(root / "train").name == "mine"


@pytest.mark.parametrize(
    ("folder", "split", "name"),
    [
        ("HWDB1.1trn_gnt", "train", "hwdb1.1"),
        ("HWDB1.1trn_gnt_P1", "train", "hwdb1.1"),
        ("HWDB1.1tst_gnt", "test", "hwdb1.1"),
        ("HWDB1.0trn_gnt", "train", "hwdb1.0"),
        ("Gnt1.0TrainPart3", "train", "hwdb1.0"),
        ("Gnt1.1Test", "test", "hwdb1.1"),
        ("Gnt1.2TrainPart2", "train", "hwdb1.2"),
        ("competition-gnt", "test", "competition"),
        ("HWDB1.1", None, "hwdb1.1"),
        ("Mine-1.1-train-of-thought", None, "Mine-1.1-train-of-thought"),
    ],
)
def test_casia_names_give_set_and_split(tmp_path: Path, folder: str, split: str | None, name: str) -> None:
    loose = find(lay(tmp_path / folder, "001-f.gnt"))
    assert (loose.name, splits(loose)) == (name, {"001-f.gnt": split})
    zipped = find(lay_zip(tmp_path / f"{folder}.zip", "001-f.gnt"))
    assert (zipped.name, splits(zipped)) == (name, {f"{folder}.zip/001-f.gnt": split})


def test_loose_files_are_split_by_their_writers_number(tmp_path: Path) -> None:
    stems = {"1001-c": "train", "1240-f": "train", "1241-c": "test", "1300-c": "test", "C001-f": "test"}
    stems |= {"1000-c": None, "1301-c": None, "001-f": None, "1001": None}
    corpus = find(lay(tmp_path, *(f"{stem}.gnt" for stem in stems)))
    assert splits(corpus) == {f"{stem}.gnt": split for stem, split in stems.items()}


def test_the_parts_of_a_set_are_one_corpus(tmp_path: Path) -> None:
    parts = [
        lay_zip(tmp_path / f"Gnt1.1{part}.zip", f"{stem}-f.gnt") for part, stem in (("Test", 1241), ("Train", 1001))
    ]
    corpus = find(*parts)
    assert corpus.name == "hwdb1.1"
    assert splits(corpus) == {"Gnt1.1Test.zip/1241-f.gnt": "test", "Gnt1.1Train.zip/1001-f.gnt": "train"}


def test_two_sources_are_one_corpus_with_names_that_stay_apart(tmp_path: Path) -> None:
    one, two = lay(tmp_path / "one", "a.gnt"), lay(tmp_path / "two", "a.gnt")
    corpus = find(two, one)
    assert corpus.name == "two+one"
    assert [partition.name for partition in corpus.partitions] == ["one/a.gnt", "two/a.gnt"]
    same = find(lay(tmp_path / "x" / "set", "a.gnt"), lay(tmp_path / "y" / "set", "a.gnt"))
    assert len({partition.name for partition in same.partitions}) == 2


def test_single_files_are_a_corpus_of_their_folder(tmp_path: Path) -> None:
    root = lay(tmp_path / "mine", "train/a.gnt", "train/b.gnt")
    corpus = find(root / "train" / "a.gnt", root / "train" / "b.gnt")
    assert corpus.name == "mine"
    assert splits(corpus) == {"a.gnt": "train", "b.gnt": "train"}
    assert len(read(corpus)) == 4


# Zips


def test_a_zip_is_read_as_the_folder_it_was_made_of(tmp_path: Path) -> None:
    names = ["train/1001-c.gnt", "test/1241-c.gnt"]
    folder = find(lay(tmp_path / "mine", *names))
    corpus = find(lay_zip(tmp_path / "away" / "mine.zip", *names))
    assert corpus.name == folder.name
    assert [(partition.name, partition.split, partition.writer, partition.size) for partition in corpus.partitions] == [
        (f"mine.zip/{partition.name}", partition.split, partition.writer, partition.size)
        for partition in folder.partitions
    ]
    for zipped, loose in zip(corpus.partitions, folder.partitions, strict=True):
        one, other = hashlib.sha256(), hashlib.sha256()
        assert len(list(zipped.samples(one))) == len(list(loose.samples(other)))
        assert one.digest() == other.digest()


def test_zips_lying_in_a_folder_are_read(tmp_path: Path) -> None:
    lay_zip(tmp_path / "sub" / "HWDB1.1tst_gnt.zip", "1241-c.gnt")
    assert splits(find(lay(tmp_path, "a.gnt"))) == {"a.gnt": None, "sub/HWDB1.1tst_gnt.zip/1241-c.gnt": "test"}


def test_an_archive_that_lies_unpacked_beside_counts_once_and_that_is_said(tmp_path: Path) -> None:
    lay_zip(tmp_path / "Gnt1.1Test.zip", "1241-f.gnt")
    assert len(find(tmp_path).partitions) == 1
    lay(tmp_path, "Gnt1.1Test/1241-f.gnt")
    corpus = find(tmp_path)
    assert [partition.name for partition in corpus.partitions] == ["Gnt1.1Test/1241-f.gnt"]
    assert "1 archive ignored, already unpacked beside it (Gnt1.1Test.zip)" in corpus.layout


def test_names_that_climb_out_of_a_zip_stay_names(tmp_path: Path) -> None:
    corpus = find(lay_zip(tmp_path / "in" / "a.zip", "../../evil.gnt", "/etc/b.gnt", "..\\c.gnt"))
    assert [partition.name for partition in corpus.partitions] == ["a.zip/c.gnt", "a.zip/etc/b.gnt", "a.zip/evil.gnt"]
    assert len(read(corpus)) == 6
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.zip"]


def test_character_folders_zipped_on_chinese_windows_are_read(tmp_path: Path) -> None:
    """Names in GBK without a mark; those of 一 alone would be valid UTF-8 for another letter."""
    path = lay_zip(tmp_path / "mine.zip", "train/@@/1.png", "train/##/1.png")
    raw = path.read_bytes().replace(b"/@@/", "/一/".encode("gbk")).replace(b"/##/", "/啊/".encode("gbk"))
    path.write_bytes(raw)
    assert [found.char for found in read(find(path)) if isinstance(found, Sample)] == ["一", "啊"]


def test_a_damaged_member_is_damage_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("1.gnt", gnt("一"))
        archive.writestr("2.gnt", gnt("丁"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(gnt("一")) + 12] ^= 1
    path.write_bytes(raw)
    damage, sample = read(find(path))
    assert isinstance(damage, Damage)
    assert (damage.origin, damage.length) == ("a.zip/1.gnt:0", len(gnt("一")))
    assert (
        f"{path}/1.gnt: damaged in its zip archive (Bad CRC-32 for file '1.gnt'); download it again" in damage.message
    )
    assert "--skip-damaged" in damage.message
    assert isinstance(sample, Sample)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_whatever_happens_to_a_zip_only_our_error_comes_out(tmp_path: Path, data: st.DataObject) -> None:
    path = lay_zip(tmp_path / "a.zip", "train/一/1.png", "train/丁/1.png")
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(len(raw) // 2, len(raw)))])
    try:
        read(find(path, allowed=None))
    except DataError as error:
        assert str(path) in str(error)


# Class folders


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("00000", "03754"), "numbered in code-point order (00000 is 一)"),
        (("0", "3754"), "numbered in code-point order (0 is 一)"),
        (("一", "龟"), "named by their characters"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_the_three_shapes_are_recognised(tmp_path: Path, folders: tuple[str, ...], said: str, zipped: bool) -> None:
    names = [f"{split}/{folder}/{i}.png" for split in ("Train", "Test") for folder in folders for i in range(2)]
    corpus = find(lay_zip(tmp_path / "casia.zip", *names) if zipped else lay(tmp_path / "casia", *names))
    assert corpus.name == "casia"
    assert corpus.layout == f"4 class folders of pictures, {said} (test 2, train 2)"
    assert [partition.split for partition in corpus.partitions] == ["test", "test", "train", "train"]
    assert {partition.size for partition in corpus.partitions} == {2 * len(png())}
    found = read(corpus)
    assert [sample.char for sample in found if isinstance(sample, Sample)] == list("一一龟龟一一龟龟")
    assert found[0].origin == f"{'casia.zip/' if zipped else ''}Test/{folders[0]}/0.png:0"


def test_digits_among_character_folders_are_characters(tmp_path: Path) -> None:
    corpus = find(lay(tmp_path, "0/a.png", "9/a.png", "一/a.png"), allowed=None)
    assert [found.char for found in read(corpus) if isinstance(found, Sample)] == ["0", "9", "一"]


def test_litter_is_silent_and_other_files_are_counted(tmp_path: Path) -> None:
    litter = ("一/Thumbs.db", "一/.DS_Store", "__MACOSX/一/._a.png", ".git/x", "desktop.ini")
    assert "ignored" not in find(lay(tmp_path, "一/a.png", *litter)).layout
    corpus = find(lay(tmp_path, "一/notes.txt", "readme.md"))
    assert corpus.layout.endswith("; 2 other files ignored (.md, .txt)")
    assert len(read(corpus)) == 1


CHAR_DICT = pickle.dumps({"丁": 0, "龟": 1}, protocol=0)


@pytest.mark.parametrize("place", ["inside", "beside", "zipped"])
def test_numbers_count_through_the_char_dict_where_there_is_one(tmp_path: Path, place: str) -> None:
    root = lay(tmp_path / "casia", "train/0/a.png", "train/1/a.png")
    (root.parent if place == "beside" else root).joinpath("char_dict").write_bytes(CHAR_DICT)
    if place == "zipped":
        with zipfile.ZipFile(tmp_path / "casia.zip", "w") as archive:
            for path in root.rglob("*.*"):
                archive.write(path, path.relative_to(root))
            archive.write(root / "char_dict", "char_dict")
        root = tmp_path / "casia.zip"
    corpus = find(root)
    assert [found.char for found in read(corpus) if isinstance(found, Sample)] == ["丁", "龟"]
    assert "ignored" not in corpus.layout


def test_char_dicts_that_disagree_are_refused(tmp_path: Path) -> None:
    for name, characters in (("a", "一丁"), ("b", "一七")):
        lay(tmp_path, f"{name}/0/x.png")
        raw = pickle.dumps({char: index for index, char in enumerate(characters)}, protocol=0)
        (tmp_path / name / "char_dict").write_bytes(raw)
    message = refusal(tmp_path)
    assert "b/char_dict has another charset" in message
    assert "label 1 is '七' against '丁'" in message


@pytest.mark.parametrize("ending", [".zip", ""])
def test_a_number_beyond_the_charset_is_refused(tmp_path: Path, ending: str) -> None:
    names = ("train/00000/a.png", "train/03755/a.png")
    path = lay_zip(tmp_path / "c.zip", *names) if ending else lay(tmp_path / "c", *names)
    assert refusal(path) == (
        f"{path}/train/03755: class number 3755, but the numbers count through the 3,755 characters of the charset, "
        "0 to 3754; name the charset that they number with --charset"
    )
    assert len(find(path, allowed=None, numbering=Charset.gb2312()).partitions) == 2


def test_a_character_outside_the_charset_is_refused(tmp_path: Path) -> None:
    message = refusal(lay(tmp_path, "一/a.png", "亍/a.png"))
    assert message.startswith(f"{tmp_path}/亍: its character 亍 is not among the 3755 of the charset")
    assert "--charset" in message
    assert "丁 is not among the 1 of" in refusal(lay(tmp_path / "n", "1/a.png"), allowed=Charset("一"))


def test_a_class_folder_that_names_no_character_is_refused(tmp_path: Path) -> None:
    root = lay(tmp_path, "train/一/a.png", "train/misc/b.png")
    assert f"{root}/train/misc: pictures in a folder whose name is neither a character nor a number" in refusal(root)


def test_numbers_among_characters_are_refused(tmp_path: Path) -> None:
    root = lay(tmp_path, "00012/a.png", "一/a.png")
    assert f"{root}/00012: a numbered class folder among folders named by a character" in refusal(root)


# HDF5; what is in the files is tests/test_hdf5.py's


def test_hdf5_files_are_found_by_name_and_in_folders(tmp_path: Path) -> None:
    alone = find(lay_hdf5(tmp_path / "HWDB1.1.hdf5"))
    assert (alone.name, [partition.name for partition in alone.partitions]) == (
        "hwdb1.1",
        ["HWDB1.1.hdf5/trn:00000000"],
    )
    lay_hdf5(tmp_path / "b" / "c.H5", "七")
    lay(tmp_path, "notes.txt", "preview.png")
    both = find(tmp_path)
    assert [partition.name for partition in both.partitions] == ["HWDB1.1.hdf5/trn:00000000", "b/c.H5/trn:00000000"]
    assert [found.char for found in read(both) if isinstance(found, Sample)] == list("一丁七")
    assert "2 pictures of 8 × 8 pixels" in both.layout
    assert "; 1 picture of 8 × 8 pixels" in both.layout
    assert both.layout.endswith("; 2 other files ignored (.txt, picture)")


@pytest.mark.parametrize("name", ["1.gnt", "一/a.png"])
def test_hdf5_files_among_others_are_passed_over_but_not_when_named(tmp_path: Path, name: str) -> None:
    weights = tmp_path / "weights.hdf5"
    with h5py.File(weights, "w") as file:
        file["layer1"] = [0.5]
    corpus = find(lay(tmp_path / "mine", name), lay(tmp_path, "b/" + name) / "b")
    assert "ignored" not in corpus.layout
    weights.rename(tmp_path / "mine" / weights.name)
    corpus = find(tmp_path / "mine")
    assert len(corpus.partitions) == 1
    assert corpus.layout.endswith("; 1 other file ignored (.hdf5)")
    named = lay_hdf5(tmp_path / "a.h5")
    message = refusal(tmp_path / "mine", named)
    assert message.endswith(" and a.h5 is an HDF5 file; a corpus is of one kind: give only one of them")


def test_hdf5_in_a_zip_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(lay_hdf5(tmp_path / "a.hdf5"), "a.hdf5")
    assert f"{tmp_path}/a.zip: found 1 .hdf5; expected .gnt files" in refusal(tmp_path / "a.zip")


def test_samples_that_would_count_twice_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.gnt")
    assert "given twice" in refusal(tmp_path / "a", tmp_path / "a" / ".." / "a", kind=UsageError)
    assert f"{tmp_path}/a/1.gnt: lies in {tmp_path}" in refusal(tmp_path, tmp_path / "a" / "1.gnt", kind=UsageError)


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    lay(tmp_path, "far/a.gnt", "mine/b.gnt")
    (tmp_path / "mine" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "mine" / "loop").symlink_to(tmp_path / "mine")
    assert [partition.name for partition in find(tmp_path / "mine").partitions] == ["b.gnt", "far/a.gnt"]
    (tmp_path / "mine" / "gone.gnt").symlink_to(tmp_path / "nowhere.gnt")
    assert "gone.gnt: cannot be read (No such file or directory)" in refusal(tmp_path / "mine")


@pytest.mark.parametrize("name", ["一/a.png", "1.gnt"])
def test_units_are_read_in_other_processes(tmp_path: Path, name: str) -> None:
    corpora = [find(lay(tmp_path / "a", name)), find(lay_zip(tmp_path / "a.zip", name))]
    here = [[found.origin for found in read(corpus)] for corpus in corpora]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        there = [[found.origin for found in found_there] for found_there in pool.map(read, corpora)]
    assert here == there
    assert all(here)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real handwriting is not here")
def test_real_handwriting_is_recognised_and_nothing_is_lost() -> None:
    corpus = find(REAL)
    counts: Counter[str | None] = Counter()
    chars: set[str] = set()
    for partition in corpus.partitions:
        for found in partition.samples(hashlib.sha256()):
            assert isinstance(found, Sample)
            counts[partition.split] += 1
            chars.add(found.char)
    assert counts == {"train": 8160, "val": 2448}
    assert len(chars) == 68
