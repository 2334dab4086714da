"""Packs written out again: what other programs read, and what comes back from it."""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
from pathlib import Path

import click
import h5py
import lmdb
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hcr.charset import Charset
from hcr.cli.data import main
from hcr.corpus.find import find_corpus
from hcr.errors import DataError, UsageError
from hcr.layout import splits_of
from hcr.pack.export import FORMATS, export
from hcr.pack.store import PackReader, close_packs, open_reader
from tests.test_docs import described

SPLITS = ("train", "val", "test")
KINDS = ("hdf5", "npy", "png", "gnt")


def readers(folder: Path) -> dict[str, PackReader]:
    return {split: open_reader(folder / f"{split}.lmdb") for split in splits_of(folder)}


def all_pictures(reader: PackReader) -> np.ndarray:
    out = np.empty((len(reader), reader.size, reader.size), np.uint8)
    reader.pictures(np.arange(len(reader)), out)
    return out


def packed(source: Path, out: Path, size: int) -> Path:
    run = CliRunner().invoke(main, ["pack", str(source), "--size", str(size), "--charset", "all", "--out", str(out)])
    assert run.exit_code == 0, run.output
    return out


def again(exported: Path, out: Path) -> dict[str, PackReader]:
    """Pack what was exported, at the same size and without naming its characters."""
    return readers(packed(exported, out, 32))


def small(folder: Path, characters: str, writer: str) -> Path:
    """A pack of a noisy picture of each of `characters`, in code-point order, all by one writer and all for testing."""
    count = len(characters)
    with h5py.File(folder / "p.hdf5", "w") as file:
        file.attrs["characters"] = characters
        file["tst/x"] = np.random.default_rng(0).integers(0, 255, (count, 16, 16)).astype(np.uint8)
        file["tst/y"] = np.arange(count)
        file["tst/writer"], file["tst/writers"] = np.zeros(count, int), [writer]
    packed(folder / "p.hdf5", folder / "p", 16)
    (folder / "p.hdf5").unlink()
    return folder / "p"


def test_the_command_offers_every_format() -> None:
    (option,) = (option for option in main.commands["export"].params if option.name == "kind")
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == list(FORMATS) == list(KINDS)


def test_hdf5_comes_back_as_the_same_pack(small_pack: Path, tmp_path: Path) -> None:
    assert export(small_pack, tmp_path / "a.hdf5", "hdf5") == {"train": 84, "val": 12, "test": 24}
    back = again(tmp_path / "a.hdf5", tmp_path / "p")
    # The digest covers pictures, labels, writers and characters.
    assert {split: reader.digest for split, reader in back.items()} == {
        split: reader.digest for split, reader in readers(small_pack).items()
    }
    assert back["train"].meta["writers"] == readers(small_pack)["train"].meta["writers"]
    assert back["val"].origins([11]) == ["a.hdf5/vld:11"]


def test_hdf5_says_all_of_itself(small_pack: Path, tmp_path: Path) -> None:
    export(small_pack, tmp_path / "a.hdf5", "hdf5")
    reader = readers(small_pack)["test"]
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert list(file) == ["trn", "tst", "vld"]
        assert file.attrs["characters"] == reader.charset.characters
        group = file["tst"]
        assert (group["x"].shape, group["x"].dtype, group["x"].chunks) == ((24, 1, 32, 32), np.uint8, None)
        np.testing.assert_array_equal(group["x"][:, 0], all_pictures(reader))
        assert group["y"].dtype == np.int64
        np.testing.assert_array_equal(group["y"], reader.labels)
        names = group["writers"].asstr()[()]
        assert [names[code] for code in group["writer"]] == [reader.meta["writers"][code] for code in reader.writers]
        assert group["origin"].asstr()[()].tolist() == reader.origins(range(24))
        written = {*file, *file.attrs, *group, *group.attrs}
    assert written <= described("HDF5")


def test_arrays_are_what_numpy_reads(small_pack: Path, tmp_path: Path) -> None:
    export(small_pack, tmp_path / "out", "npy")
    for split, reader in readers(small_pack).items():
        x = np.load(tmp_path / f"out/{split}-x.npy", mmap_mode="r")
        y = np.load(tmp_path / f"out/{split}-y.npy")
        assert (x.shape, x.dtype, y.dtype) == ((len(reader), 1, 32, 32), np.uint8, np.int64)
        np.testing.assert_array_equal(x[:, 0], all_pictures(reader))
        np.testing.assert_array_equal(y, reader.labels)
    assert (tmp_path / "out/characters.txt").read_text("utf-8").split() == list(reader.charset.characters)
    files = {path.name.replace("val", "train").replace("test", "train") for path in (tmp_path / "out").iterdir()}
    assert files <= described("Arrays")


@pytest.mark.parametrize("kind", ["npy", "png"])
def test_the_table_names_every_sample(small_pack: Path, tmp_path: Path, kind: str) -> None:
    export(small_pack, tmp_path / "out", kind)
    reader = readers(small_pack)["train"]
    with open(tmp_path / "out/train.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == reader.labels.tolist()
    assert [row["char"] for row in rows] == [reader.charset[label] for label in reader.labels]
    assert [row["writer"] for row in rows] == [reader.meta["writers"][code] for code in reader.writers]
    assert [row["origin"] for row in rows] == reader.origins(range(len(reader)))
    assert set(rows[0]) <= described("Arrays")


def test_png_folders_come_back_but_for_their_writers(small_pack: Path, tmp_path: Path) -> None:
    export(small_pack, tmp_path / "out", "png")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "char_dict", "test", "test.csv", "train", "train.csv", "val", "val.csv",
    ]  # fmt: skip
    assert {"char_dict", "train"} <= described("PNG")
    for split, reader in readers(small_pack).items():
        found = sorted((tmp_path / "out" / split).glob("*/*.png"), key=lambda path: path.name)
        assert [path.parent.name for path in found] == [f"{label:05d}" for label in reader.labels]
        for path, picture in zip(found, all_pictures(reader), strict=True):
            with Image.open(path) as image:
                assert image.mode == "L"
                np.testing.assert_array_equal(np.asarray(image), picture)
    # 12 characters of level 1: without char_dict, folder 00001 would be 丁.
    back = again(tmp_path / "out", tmp_path / "p")
    for split, reader in readers(small_pack).items():
        assert back[split].charset == reader.charset
        assert back[split].meta["writers"] == [""]
        assert pairs(back[split]) == pairs(reader)


def pairs(reader: PackReader) -> list[tuple[int, bytes]]:
    """Label and pixels of every sample; the order is the source's, which folders do not keep."""
    return sorted(zip(reader.labels.tolist(), (picture.tobytes() for picture in all_pictures(reader)), strict=True))


def test_characters_that_cannot_name_a_folder_survive_as_numbers(tmp_path: Path) -> None:
    source = small(tmp_path, "./a一", "")
    export(source, tmp_path / "out", "png")
    assert Charset.read(tmp_path / "out/char_dict").characters == "./a一"
    assert [path.name for path in (tmp_path / "out/test/00000").iterdir()] == ["0000000.png"]
    back = find_corpus([tmp_path / "out"], allowed=None, numbering=Charset.level1())
    assert [partition.char for partition in back.partitions] == list("./a一")  # type: ignore[attr-defined]


def test_gnt_comes_back_with_its_writers(small_pack: Path, tmp_path: Path) -> None:
    export(small_pack, tmp_path / "out", "gnt")
    expected = {
        f"{split}/{writer}.gnt" for split, reader in readers(small_pack).items() for writer in reader.meta["writers"]
    }
    assert {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").glob("*/*")} == expected
    back = again(tmp_path / "out", tmp_path / "p")
    assert {split: reader.digest for split, reader in back.items()} == {
        split: reader.digest for split, reader in readers(small_pack).items()
    }


def test_gnt_of_unknown_writers_is_one_file(tmp_path: Path) -> None:
    export(small(tmp_path, "!一丁", ""), tmp_path / "out", "gnt")
    assert [path.name for path in (tmp_path / "out/test").iterdir()] == ["unnamed.gnt"]
    assert "unnamed.gnt" in described("GNT")


@pytest.mark.parametrize("writer", ["../a", "a/b", "a\\b", ".a"])
def test_a_writer_that_cannot_name_a_file_is_refused(tmp_path: Path, writer: str) -> None:
    with pytest.raises(DataError, match="cannot name a GNT file; export to hdf5, npy or png instead"):
        export(small(tmp_path, "一", writer), tmp_path / "out", "gnt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p"]


def test_a_character_without_a_gbk_code_is_refused_by_gnt_alone(tmp_path: Path) -> None:
    source = small(tmp_path, "一𠀀", "a")
    with pytest.raises(DataError, match="'𠀀' has no GBK code"):
        export(source, tmp_path / "out", "gnt")
    for kind in ("hdf5", "npy", "png"):
        assert export(source, tmp_path / kind, kind) == {"test": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_named_splits(small_pack: Path, tmp_path: Path, kind: str) -> None:
    steps: list[tuple[int, int]] = []
    done = export(small_pack, tmp_path / "out", kind, ["test"], lambda *step: steps.append(step))
    assert done == {"test": 24}
    assert steps == [(24, 24)]
    if kind == "hdf5":
        with h5py.File(tmp_path / "out") as file:
            assert list(file) == ["tst"]
    else:
        assert not list((tmp_path / "out").rglob("train*"))


def test_what_cannot_be_exported_is_refused(small_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="there: exists already; name another --out, or remove it"):
        export(small_pack, tmp_path / "there", "npy")
    source = small(tmp_path, "一", "")
    with pytest.raises(UsageError, match="no split 'train'; it has test"):
        export(source, tmp_path / "out", "npy", ["train"])
    with pytest.raises(DataError, match="no such pack; make it with"):
        export(tmp_path / "none", tmp_path / "out", "npy")


@pytest.mark.parametrize("kind", KINDS)
def test_damage_in_the_pack_leaves_nothing_behind(tmp_path: Path, kind: str) -> None:
    source = small(tmp_path, "一丁", "")
    pixels = all_pictures(open_reader(source / "test.lmdb"))[1].tobytes()
    changed = (source / "test.lmdb").read_bytes().replace(pixels, bytes([pixels[0] ^ 1]) + pixels[1:])
    (source / "new").write_bytes(changed)
    (source / "new").replace(source / "test.lmdb")
    with pytest.raises(DataError, match="block/00000000: CRC32"):
        export(source, tmp_path / "out", kind)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p"]


def test_labels_beyond_the_characters_are_damage(tmp_path: Path) -> None:
    source = small(tmp_path, "一", "")
    close_packs()
    with lmdb.open(str(source / "test.lmdb"), subdir=False, lock=False) as env, env.begin(write=True) as transaction:
        transaction.put(b"labels", b"\1\0")
    with pytest.raises(DataError, match="labels or writers are damaged; hcr-data verify says more"):
        export(source, tmp_path / "out", "npy")


def test_splits_of_other_characters_are_refused(tmp_path: Path) -> None:
    source = small(tmp_path, "一", "")
    (tmp_path / "other").mkdir()
    other = small(tmp_path / "other", "丁", "")
    close_packs()
    (other / "test.lmdb").rename(source / "train.lmdb")
    with pytest.raises(DataError, match="has another charset"):
        export(source, tmp_path / "out", "npy")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_cannot_be_written_is_one_line(small_pack: Path, tmp_path: Path, kind: str) -> None:
    # A limit on the size of files is refused by the system as a full disk is.
    limit = 4096 if kind != "png" else 300
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from hcr.cli.data import main; main()",
            "export",
            small_pack,
            "--to",
            kind,
            "--out",
            tmp_path / "out",
        ],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert run.stderr == (
        f"error: {tmp_path}/out: cannot be written (File too large); make room, or name another --out\n"
    )
    assert run.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_what_an_interrupted_export_left_is_replaced(small_pack: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.tmp/train").mkdir(parents=True)
    (tmp_path / ".out.tmp/train/stale.gnt").touch()
    export(small_pack, tmp_path / "out", "gnt")
    assert not list(tmp_path.rglob("stale.gnt"))


def test_the_command_says_what_it_wrote(small_pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep/a.hdf5"
    run = CliRunner().invoke(main, ["export", str(small_pack), "--to", "hdf5", "--out", str(out)])
    assert run.output == f"{out}: 84 train + 12 val + 24 test samples\n"
    run = CliRunner().invoke(main, ["export", str(small_pack), "--to", "hdf5", "--out", str(out)])
    assert (run.exit_code, run.output) == (
        2,
        f"error: {out}: exists already; name another --out, or remove it\n",
    )
