"""What is packed when nothing is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hcr.corpus.find import default_sources
from hcr.errors import UsageError
from tests.layouts import find, lay, lay_hdf5, lay_zip, splits


def test_the_parts_of_one_set_are_the_default(tmp_path: Path) -> None:
    lay(tmp_path, "README.md", ".hidden/x.gnt", "HWDB1.1trn_gnt/1001-c.gnt", "drawn/train/0.gnt")
    for name in ("Gnt1.1TrainPart1", "Gnt1.1TrainPart2", "Gnt1.1Test"):
        lay_zip(tmp_path / f"{name}.zip", "a.gnt")
    names = [path.name for path in default_sources(tmp_path)]
    assert names == ["Gnt1.1Test.zip", "Gnt1.1TrainPart1.zip", "Gnt1.1TrainPart2.zip", "HWDB1.1trn_gnt"]


def test_an_hdf5_file_is_a_corpus_of_its_own(tmp_path: Path) -> None:
    path = lay_hdf5(tmp_path / "HWDB1.1.hdf5")
    assert default_sources(tmp_path) == [path]
    lay(tmp_path, "HWDB1.1trn_gnt/1001-c.gnt")
    with pytest.raises(UsageError, match="holds 2 corpora"):
        default_sources(tmp_path)


def test_the_drawn_corpus_is_the_default_only_alone(tmp_path: Path) -> None:
    lay(tmp_path, "README.md", "drawn/train/0.gnt")
    (tmp_path / "empty").mkdir()
    assert default_sources(tmp_path) == [tmp_path / "drawn"]
    lay(tmp_path, "mine/0.gnt")
    assert default_sources(tmp_path) == [tmp_path / "mine"]


def test_loose_files_and_split_folders_are_one_corpus(tmp_path: Path) -> None:
    lay(tmp_path, "train/一/a.png", "test/一/a.png")
    assert default_sources(tmp_path) == [tmp_path / "test", tmp_path / "train"]
    corpus = find(*default_sources(tmp_path))
    assert corpus.name == tmp_path.name
    assert splits(corpus) == {"test/一": "test", "train/一": "train"}


def test_several_corpora_are_listed_as_commands(tmp_path: Path) -> None:
    lay(tmp_path, "my set/0.gnt", "1.gnt", "2.gnt", "drawn/0.gnt")
    lay_zip(tmp_path / "Gnt1.0Test.zip", "a.gnt")
    with pytest.raises(UsageError) as caught:
        default_sources(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds 3 corpora; choose one: `hcr-data pack {tmp_path}/*.gnt`, or "
        f"`hcr-data pack {tmp_path}/Gnt1.0Test.zip`, or `hcr-data pack '{tmp_path}/my set'`"
    )


@pytest.mark.parametrize("make", [lambda raw: raw, lambda raw: raw / "none"], ids=["empty", "missing"])
def test_no_corpus_says_what_to_do(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    lay(tmp_path, "README.md")
    with pytest.raises(UsageError, match="no corpus here; run `make dataset`"):
        default_sources(make(tmp_path))
