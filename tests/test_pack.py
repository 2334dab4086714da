"""The pack: format, cuts, damage, and what is left out."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from PIL import Image

from hcr.charset import Charset
from hcr.corpus.find import find_corpus
from hcr.corpus.gnt import encode_record, read_gnt
from hcr.corpus.sample import Corpus, Damage, Digest, Partition, Sample
from hcr.errors import DataError, HcrError, UsageError
from hcr.pack.config import BLOCK, PackConfig
from hcr.pack.inspect import contact_sheet, info, verify
from hcr.pack.packer import PackSummary, pack, pack_sizes
from hcr.pack.store import close_packs, open_reader
from hcr.preprocess.fit import PREPROCESSING, fit_square


def ink(width: int = 20, height: int = 24, value: int = 40) -> np.ndarray:
    picture = np.full((height, width), 255, np.uint8)
    picture[4:-4, 4:-4] = value
    return picture


def packed(source: Path, out: Path, **settings: object) -> PackSummary:
    config = PackConfig(**{"size": 32, **settings})  # type: ignore[arg-type]
    corpus = find_corpus([source], allowed=config.characters, numbering=Charset.level1())
    return pack(corpus, out, config)


def gnt_files(folder: Path, files: dict[str, str]) -> Path:
    """Write a GNT file for each name, with these characters."""
    for number, (name, characters) in enumerate(files.items()):
        path = folder / f"{name}.gnt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(encode_record(char, ink(value=number)) for char in characters))
    return folder


def test_every_sample_is_kept_with_label_writer_and_origin(corpus_folder: Path, small_pack: Path) -> None:
    expected = {}
    for path in corpus_folder.glob("*/*.gnt"):
        name = path.relative_to(corpus_folder).as_posix()
        for sample in read_gnt(path.read_bytes(), writer=path.stem, name=name):
            assert isinstance(sample, Sample)
            expected[sample.origin] = (sample.char, sample.writer, fit_square(sample.picture, 32))
    seen = 0
    for split in ("train", "val", "test"):
        reader = open_reader(small_pack / f"{split}.lmdb")
        pictures = np.empty((len(reader), 32, 32), np.uint8)
        reader.pictures(np.arange(len(reader)), pictures)
        for i, origin in enumerate(reader.origins(range(len(reader)))):
            char, writer, picture = expected[origin]
            assert reader.charset[reader.labels[i]] == char
            assert reader.meta["writers"][reader.writers[i]] == writer
            assert np.array_equal(pictures[i], picture)
        seen += len(reader)
    assert seen == len(expected) == 120


def test_validation_writers_are_apart_and_test_is_kept(small_pack: Path) -> None:
    writers = {}
    for split, facts in info(small_pack).items():
        writers[split] = set(facts["meta"]["writers"])
        assert facts["meta"]["validation"].startswith("by writer: 1 of 8")
    assert [len(writers[split]) for split in ("train", "val", "test")] == [7, 1, 2]
    assert not writers["train"] & writers["val"] and not writers["train"] & writers["test"]


def test_the_format_reads_without_our_code(small_pack: Path) -> None:
    close_packs()
    env = lmdb.open(str(small_pack / "train.lmdb"), subdir=False, readonly=True, lock=False)
    with env.begin() as transaction:
        meta = json.loads(transaction.get(b"meta"))
        values = [transaction.get(b"block/%08d" % number) for number in range(2)]
        labels = np.frombuffer(transaction.get(b"labels"), "<u2")
    env.close()
    assert meta["format"] == "hcr-pack" and meta["preprocessing"] == PREPROCESSING
    assert len(labels) == meta["count"] == 84
    for value, samples in zip(values, (64, 20), strict=True):
        assert zlib.crc32(value[:-4]) == int.from_bytes(value[-4:], "little")
        assert len(value) == samples * 32 * 32 + 4
    assert meta["characters"] == "".join(sorted(meta["characters"])) and len(meta["characters"]) == 12


def test_the_digest_is_of_checksums_labels_writers_and_characters(small_pack: Path) -> None:
    reader = open_reader(small_pack / "train.lmdb")
    digest = hashlib.sha256()
    for number in range(reader.block_count):
        digest.update(zlib.crc32(reader.block(number)).to_bytes(4, "little"))
    for part in (reader.labels.tobytes(), reader.writers.tobytes(), reader.charset.characters.encode()):
        digest.update(part)
    assert reader.digest == digest.hexdigest()[:16]


@dataclass(frozen=True)
class BrokenPartition(Partition):
    """A source of which nobody has foreseen how it fails."""

    def samples(self, digest: Digest) -> Iterator[Sample | Damage]:
        yield Sample(ink(), "一", "", "x:0")
        raise RuntimeError("no such luck")

    def changed(self) -> float:
        return 0


def test_what_fails_in_a_reading_process_is_one_line(tmp_path: Path) -> None:
    corpus = Corpus("c", "", (BrokenPartition("a", None, "", 1), BrokenPartition("b", None, "", 1)))
    with pytest.raises(HcrError, match="a: reading failed: RuntimeError: no such luck") as caught:
        pack(corpus, tmp_path / "p", PackConfig(), workers=2)
    assert "in samples" in caught.value.__cause__.__notes__[0]
    assert not list(tmp_path.iterdir())


def test_packs_made_together_differ_in_size_alone(corpus_folder: Path, tmp_path: Path) -> None:
    corpus = find_corpus([corpus_folder], allowed=None, numbering=Charset.level1())
    with pytest.raises(UsageError, match="may differ in their size alone"):
        pack_sizes(corpus, {tmp_path / "a": PackConfig(32), tmp_path / "b": PackConfig(48, seed=1)})


def test_more_than_a_block(tmp_path: Path) -> None:
    source = gnt_files(tmp_path / "raw", {"a": "一" * BLOCK, "b": "丁" * 3, "c": "七"})
    summary = packed(source, tmp_path / "p", val=0)
    assert summary.counts == {"train": BLOCK + 4}
    reader = open_reader(tmp_path / "p/train.lmdb")
    assert reader.block_count == 2 and reader.block(1).shape == (4, 32, 32)
    assert reader.origins([BLOCK]) == ["b.gnt:0"]
    out = np.empty((2, 32, 32), np.uint8)
    reader.pictures(np.array([BLOCK, 0]), out)
    assert out[0].min() == 1 and out[1].min() == 0


def test_same_sources_give_the_same_bytes(corpus_folder: Path, small_pack: Path, tmp_path: Path) -> None:
    packed(corpus_folder, tmp_path / "again")
    for split in ("train", "val", "test"):
        assert info(tmp_path / "again")[split]["meta"] == info(small_pack)[split]["meta"]


def test_a_finished_pack_is_kept_and_another_refused(corpus_folder: Path, tmp_path: Path) -> None:
    first = packed(corpus_folder, tmp_path / "p")
    changed = (tmp_path / "p/train.lmdb").stat().st_mtime_ns
    again = packed(corpus_folder, tmp_path / "p")
    assert not first.already_packed and again.already_packed and again.counts == first.counts
    assert (tmp_path / "p/train.lmdb").stat().st_mtime_ns == changed
    with pytest.raises(UsageError, match=r"holds another pack \(packed with --seed 0, now --seed 1\)"):
        packed(corpus_folder, tmp_path / "p", seed=1)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not a pack"):
        packed(corpus_folder, tmp_path / "taken")
    assert (tmp_path / "taken/letter.txt").read_text() == "mine"


def lay_source(kind: str, folder: Path, value: int) -> Path:
    """Write a source of this kind whose ink has this value; its size is the same for every value."""
    picture = io.BytesIO()
    Image.fromarray(ink(value=value)).save(picture, "png", compress_level=0)
    record = encode_record("一", ink(value=value)) + encode_record("丁", ink(value=value))
    folder.mkdir(exist_ok=True)
    if kind == "gnt":
        (folder / "w.gnt").write_bytes(record)
    elif kind == "pictures":
        for char in "一丁":
            (folder / char).mkdir(exist_ok=True)
            (folder / char / "0.png").write_bytes(picture.getvalue())
    elif kind == "zip":
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            archive.writestr("w.gnt", record)
    elif kind == "zipped pictures":
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            archive.writestr("一/0.png", picture.getvalue())
    else:
        with h5py.File(folder / "a.h5", "w") as file:
            file["trn/x"] = np.stack([ink(value=value), ink(value=value)])
            file["trn/tagcode"] = np.frombuffer("一丁".encode("gbk"), ">u2")
    return folder


CHANGED = {"gnt": "w.gnt", "pictures": "一", "zip": "a.zip/w.gnt", "zipped pictures": "a.zip/一"}


@pytest.mark.parametrize("kind", [*CHANGED, "hdf5"])
def test_a_source_that_was_touched_is_packed_already_and_a_changed_one_refused(kind: str, tmp_path: Path) -> None:
    source = lay_source(kind, tmp_path / "raw", 40)
    packed(source, tmp_path / "p")
    for path in source.rglob("*"):
        os.utime(path)
    assert packed(source, tmp_path / "p").already_packed
    lay_source(kind, source, 41)
    name = CHANGED.get(kind, "a.h5/trn:00000000")
    with pytest.raises(UsageError, match=f"{name} has changed since it was packed; delete the pack, or choose another"):
        packed(source, tmp_path / "p")
    assert not packed(source, tmp_path / "q").already_packed


def test_sources_older_than_the_pack_are_not_read_again(tmp_path: Path) -> None:
    source = lay_source("gnt", tmp_path / "raw", 40)
    packed(source, tmp_path / "p", val=0)
    lay_source("gnt", source, 41)
    later = time.time() + 60
    os.utime(tmp_path / "p/train.lmdb", (later, later))
    assert packed(source, tmp_path / "p", val=0).already_packed


def test_a_file_that_gave_nothing_and_gives_samples_now_has_changed(tmp_path: Path) -> None:
    source = gnt_files(tmp_path / "raw", {"w1": "一丁", "w2": "!A"})
    packed(source, tmp_path / "p", characters=Charset.level1())
    os.utime(source / "w2.gnt")
    assert packed(source, tmp_path / "p", characters=Charset.level1()).already_packed
    gnt_files(source, {"w0": "", "w2": "!丁"})
    (source / "w0.gnt").unlink()
    with pytest.raises(UsageError, match=r"w2\.gnt has changed"):
        packed(source, tmp_path / "p", characters=Charset.level1())


def test_without_writers_validation_is_stratified(tmp_path: Path) -> None:
    for char in "一丁":
        (tmp_path / "raw" / char).mkdir(parents=True)
        for number in range(40):
            Image.fromarray(ink(20 + number, 60)).save(tmp_path / "raw" / char / f"{number:03}.png")
    summary = packed(tmp_path / "raw", tmp_path / "p")
    assert summary.counts == {"train": 72, "val": 8}
    facts = info(tmp_path / "p")
    assert "stratified" in facts["val"]["meta"]["validation"]
    reader = open_reader(tmp_path / "p/val.lmdb")
    assert np.bincount(reader.labels).tolist() == [4, 4]


def test_left_out_samples_are_counted_by_reason(tmp_path: Path) -> None:
    source = gnt_files(tmp_path / "raw", {"w1": "一!丁A", "w2": "一丁!"})
    summary = packed(source, tmp_path / "p", characters=Charset.level1())
    assert summary.left_out == {"outside the charset": 3}
    assert summary.charset.characters == "一丁" and sum(summary.counts.values()) == 4
    everything = packed(source, tmp_path / "all")
    assert everything.charset.characters == "!A一丁" and everything.left_out == {}
    fixed = packed(source, tmp_path / "fixed", characters=Charset("一丁七"), fixed=True)
    assert fixed.charset.characters == "一丁七"
    with pytest.raises(DataError, match=r"no sample left to pack \(7 outside the charset\)"):
        packed(source, tmp_path / "none", characters=Charset("七"))
    assert not (tmp_path / "none").exists() and not list(tmp_path.glob(".*"))


def test_damage_stops_the_pack_unless_it_is_skipped(tmp_path: Path) -> None:
    source = gnt_files(tmp_path / "raw", {"w1": "一丁", "w2": "一丁"})
    whole = (source / "w2.gnt").read_bytes()
    (source / "w2.gnt").write_bytes(whole[:-5])
    with pytest.raises(DataError, match=r"w2\.gnt"):
        packed(source, tmp_path / "p")
    assert not (tmp_path / "p").exists()
    summary = packed(source, tmp_path / "p", skip_damaged=True)
    assert summary.left_out == {"damaged": 1} and sum(summary.counts.values()) == 3
    assert "w2.gnt" in summary.damaged[0] and str(len(whole) // 2) in summary.damaged[0]


@pytest.mark.parametrize(("size", "val"), [(8, 0.1), (1000, 0.1), (64, 1.0), (64, -0.1)])
def test_settings_out_of_range_are_refused(size: int, val: float) -> None:
    with pytest.raises(UsageError, match="expected"):
        PackConfig(size=size, val=val)


def flip(path: Path, find: bytes, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    position = raw.rindex(find) + offset
    raw[position] ^= 0x10
    path.write_bytes(raw)


def copy_of(pack_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pack_folder, tmp_path / "copy"))


def test_verify_finds_every_flipped_bit_of_a_block(small_pack: Path, tmp_path: Path) -> None:
    assert verify(small_pack) == []
    folder = copy_of(small_pack, tmp_path)
    reader = open_reader(folder / "train.lmdb")
    pixels = reader.block(0).tobytes()
    rng = np.random.default_rng(0)
    original = (folder / "train.lmdb").read_bytes()
    for offset in rng.integers(0, len(pixels), 20):
        (folder / "train.lmdb").write_bytes(original)
        flip(folder / "train.lmdb", pixels[:4096], int(offset))
        problems = verify(folder)
        assert len(problems) == 1 and "block/00000000: CRC32" in problems[0]


def test_a_pack_cut_short_is_refused(small_pack: Path, tmp_path: Path) -> None:
    folder = copy_of(small_pack, tmp_path)
    raw = (folder / "train.lmdb").read_bytes()
    (folder / "train.lmdb").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=rf"cut short: {len(raw) // 2} bytes, expected {len(raw)}"):
        open_reader(folder / "train.lmdb")
    assert any("cut short" in problem for problem in verify(folder))


@pytest.mark.parametrize("content", [b"", b"no pack", bytes(8192)])
def test_what_is_no_pack_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "train.lmdb").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.lmdb: .*delete the pack and make it again with hcr-data pack"):
        open_reader(tmp_path / "train.lmdb")
    with pytest.raises(DataError, match="no such split; there is train"):
        open_reader(tmp_path / "val.lmdb")


def change(path: Path, key: bytes, value: bytes | None) -> None:
    close_packs()
    env = lmdb.open(str(path), subdir=False, lock=False)
    with env.begin(write=True) as transaction:
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)
    env.close()


def test_wrong_values_are_named(small_pack: Path, tmp_path: Path) -> None:
    folder = copy_of(small_pack, tmp_path)
    path = folder / "test.lmdb"
    reader = open_reader(path)
    labels, meta = reader.labels.copy(), reader.meta
    labels[5] ^= 1
    change(path, b"labels", labels.tobytes())
    assert any("labels or writers are damaged" in line for line in verify(folder))
    labels[5] = 999
    change(path, b"labels", labels.tobytes())
    assert any("labels: 1 of 24 are not below 12, the first at sample 5 (999)" in line for line in verify(folder))
    change(path, b"labels", labels.tobytes()[:-2])
    with pytest.raises(DataError, match="key labels: 46 bytes, expected 48"):
        open_reader(path)
    change(path, b"labels", labels.tobytes())
    change(path, b"block/00000000", None)
    assert any("block/00000000: nothing, expected" in line for line in verify(folder))
    change(path, b"meta", json.dumps(meta | {"preprocessing": {"version": 0}}).encode())
    with pytest.raises(DataError, match="this program prepares by"):
        open_reader(path)
    change(path, b"meta", None)
    with pytest.raises(DataError, match="expected format 'hcr-pack', found None"):
        open_reader(path)


def test_splits_of_different_charsets_are_found(small_pack: Path, tmp_path: Path) -> None:
    folder = copy_of(small_pack, tmp_path)
    packed(gnt_files(tmp_path / "raw", {"w": "一"}), tmp_path / "other", val=0)
    shutil.copy(tmp_path / "other/train.lmdb", folder / "test.lmdb")
    assert any("different charsets" in line for line in verify(folder))


def test_contact_sheet_shows_the_chosen_pictures(small_pack: Path) -> None:
    reader = open_reader(small_pack / "train.lmdb")
    char, name = reader.charset[3], reader.meta["writers"][0]
    place = int(np.flatnonzero(reader.labels == 3)[0])
    expected = reader.block(0)[place].copy()
    sheet = contact_sheet(small_pack, "train", char=char, columns=4)
    assert sheet.shape == (2 * 34 + 2, 4 * 34 + 2)
    assert np.array_equal(sheet[2:34, 2:34], expected)
    assert contact_sheet(small_pack, "train", writer=name, columns=12).shape == (36, 12 * 34 + 2)
    with pytest.raises(UsageError, match="no writer 'nobody'"):
        contact_sheet(small_pack, "train", writer="nobody")
    with pytest.raises(DataError, match="'A'"):
        contact_sheet(small_pack, "train", char="A")
    with pytest.raises(UsageError, match="it has train, val, test"):
        contact_sheet(small_pack, "dev")


def test_real_handwriting_packs_whole(real: Path, tmp_path: Path) -> None:
    summary = packed(real, tmp_path / "real", size=64, characters=Charset.level1())
    assert summary.counts == {"train": 8160, "val": 2448}
    assert len(summary.charset) == 68 and summary.left_out == {}
    assert verify(tmp_path / "real") == []
