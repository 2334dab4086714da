"""What is no corpus: one clear line that says what was found and what to do."""

from pathlib import Path

import pytest

from tests.layouts import find, lay, lay_zip, refusal


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path}/none: no such file or folder" in refusal(tmp_path / "none")


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path}: found nothing; expected .gnt files, class folders of pictures, a zip of either, or an HDF5 file"
    )


def test_a_folder_of_text_says_what_was_found(tmp_path: Path) -> None:
    root = lay(tmp_path, "a.txt", "sub/b.txt", "README")
    assert f"{root}: found 2 .txt, 1 README; expected .gnt files" in refusal(root)


def test_an_empty_source_beside_a_good_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert f"{tmp_path}/b: found nothing" in refusal(lay(tmp_path / "a", "x.gnt"), tmp_path / "b")


def test_gnt_and_class_folders_together_are_refused(tmp_path: Path) -> None:
    message = refusal(lay(tmp_path, "w/1.gnt", "train/一/a.png"))
    assert "w/1.gnt is a GNT file and train/一 is a class folder of pictures" in message


def test_a_zip_that_holds_an_alz_says_to_unpack_it(tmp_path: Path) -> None:
    path = lay_zip(tmp_path / "HWDB1.1trn_gnt.zip", "HWDB1.1trn_gnt.alz")
    message = refusal(path)
    assert message.startswith(f"{path}/HWDB1.1trn_gnt.alz: an archive that cannot be read here; unpack it")
    assert refusal(tmp_path) == message, "not even where other archives beside it could be read"
    lay(tmp_path, "HWDB1.1trn_gnt/1001-c.gnt")
    assert len(find(tmp_path).partitions) == 1
    assert "cannot be read here" in refusal(lay(tmp_path / "x", "a.alz") / "a.alz")


def test_a_zip_in_a_zip_says_to_unpack_it(tmp_path: Path) -> None:
    assert "a.zip/inner.zip: an archive that cannot be read here" in refusal(lay_zip(tmp_path / "a.zip", "inner.zip"))


@pytest.mark.parametrize("cut", [0, 10, -30])
def test_a_file_that_is_no_zip_though_named_so(tmp_path: Path, cut: int) -> None:
    path = lay_zip(tmp_path / "a.zip", "1.gnt")
    path.write_bytes(path.read_bytes()[:cut])
    assert f"{path}: not a zip archive, or cut short (File is not a zip file); download it again" in refusal(path)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    lay(tmp_path, "a.txt")
    assert f"{tmp_path}/a.txt: neither a .gnt file, a zip archive nor an HDF5 file" in refusal(tmp_path / "a.txt")
