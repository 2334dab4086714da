"""Pictures in class folders: any mode and polarity in, 255 = paper out, on disk and in a zip."""

import hashlib
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcr.corpus.archive import Folder, Zip
from hcr.corpus.png import PicturePartition
from hcr.corpus.sample import Damage, Sample


def stroke() -> Image.Image:
    """Draw a dark bar on white paper."""
    pixels = np.full((20, 30), 255, np.uint8)
    pixels[9:12, 4:26] = 0
    return Image.fromarray(pixels)


def samples(partition: PicturePartition) -> list[Sample | Damage]:
    return list(partition.samples(hashlib.sha256()))


def partition_on_disk(folder: Path) -> PicturePartition:
    return PicturePartition("train/一", "train", "", 0, Folder(folder), "train/一", "一")


@pytest.fixture
def class_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "train" / "一"
    folder.mkdir(parents=True)
    return folder


def test_pictures_come_sorted_by_name_with_their_origin(tmp_path: Path, class_folder: Path) -> None:
    for name in ("b.png", "10.png", "A.PNG", "2.png"):
        stroke().save(class_folder / name)
    found = samples(partition_on_disk(tmp_path))
    assert [sample.origin for sample in found] == [
        "train/一/10.png:0",
        "train/一/2.png:0",
        "train/一/A.PNG:0",
        "train/一/b.png:0",
    ]
    for sample in found:
        assert isinstance(sample, Sample)
        assert (sample.char, sample.writer) == ("一", "")
        np.testing.assert_array_equal(sample.picture, np.asarray(stroke()))


def test_the_bytes_alone_give_the_same_digest_as_the_samples(tmp_path: Path, class_folder: Path) -> None:
    for name in ("a.png", "b.png"):
        stroke().save(class_folder / name)
    (class_folder / "c.png").write_bytes(b"no picture")
    (class_folder / "notes.txt").write_text("of no account")
    partition, by_samples, by_bytes = partition_on_disk(tmp_path), hashlib.sha256(), hashlib.sha256()
    assert [type(found) for found in partition.samples(by_samples)] == [Sample, Sample, Damage]
    partition.feed(by_bytes)
    expected = (class_folder / "a.png").read_bytes() + (class_folder / "b.png").read_bytes() + b"no picture"
    assert by_samples.hexdigest() == by_bytes.hexdigest() == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize(
    ("name", "mode"), [*product(["a.png", "a.bmp"], ["L", "RGB", "1"]), *product(["a.jpg", "a.jpeg"], ["L", "RGB"])]
)
def test_formats_modes_and_polarities_read_alike(tmp_path: Path, class_folder: Path, name: str, mode: str) -> None:
    inverted = Image.fromarray(255 - np.asarray(stroke()))
    for number, image in enumerate((stroke(), inverted)):
        image.convert(mode).save(class_folder / f"{number}{name}")
    dark, light = samples(partition_on_disk(tmp_path))
    for sample in (dark, light):
        assert isinstance(sample, Sample)
        assert sample.picture.dtype == np.uint8
        np.testing.assert_allclose(sample.picture, np.asarray(stroke()), atol=40)


def test_hidden_and_other_files_are_no_samples(tmp_path: Path, class_folder: Path) -> None:
    stroke().save(class_folder / "a.png")
    stroke().save(class_folder / "._a.png", format="png")
    for litter in ("Thumbs.db", ".DS_Store", "notes.txt"):
        (class_folder / litter).write_bytes(b"x")
    assert [found.origin for found in samples(partition_on_disk(tmp_path))] == ["train/一/a.png:0"]


def test_a_file_that_is_no_picture_is_damage_and_the_others_are_read(tmp_path: Path, class_folder: Path) -> None:
    stroke().save(class_folder / "c.png")
    whole = (class_folder / "c.png").read_bytes()
    (class_folder / "a.png").write_text("not a picture")
    (class_folder / "b.png").write_bytes(whole[: len(whole) // 2])
    text, cut, good = samples(partition_on_disk(tmp_path))
    assert isinstance(text, Damage)
    assert (text.origin, text.length) == ("train/一/a.png:0", 13)
    assert "train/一/a.png: not a" in text.message
    assert "--skip-damaged" in text.message
    assert "\n" not in text.message
    assert isinstance(cut, Damage)
    assert (cut.origin, cut.length) == ("train/一/b.png:0", len(whole) // 2)
    assert isinstance(good, Sample)


def test_the_digest_takes_in_every_picture(tmp_path: Path, class_folder: Path) -> None:
    stroke().save(class_folder / "a.png")
    (class_folder / "b.png").write_bytes(b"damaged")
    digest = hashlib.sha256()
    assert len(list(partition_on_disk(tmp_path).samples(digest))) == 2
    assert digest.hexdigest() == hashlib.sha256((class_folder / "a.png").read_bytes() + b"damaged").hexdigest()


def test_a_class_folder_in_a_zip_reads_as_on_disk(tmp_path: Path, class_folder: Path) -> None:
    for name in ("b.png", "a.png"):
        stroke().save(class_folder / name)
    (class_folder / "c.png").write_bytes(b"damaged")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in class_folder.iterdir():
            archive.write(file, f"train/一/{file.name}")
    zipped = PicturePartition("train/一", "train", "", 0, Zip(tmp_path / "all.zip"), "train/一", "一")
    for loose, packed in zip(samples(partition_on_disk(tmp_path)), samples(zipped), strict=True):
        assert loose.origin == packed.origin
        if isinstance(loose, Sample) and isinstance(packed, Sample):
            np.testing.assert_array_equal(loose.picture, packed.picture)
        else:
            assert loose == packed
