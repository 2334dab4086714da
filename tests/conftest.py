"""What the tests share: a small drawn corpus and its pack, made once by the real code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hcr.charset import Charset
from hcr.corpus.find import find_corpus
from hcr.corpus.synthetic import draw_corpus, spread
from hcr.evaluation.analysis import Evaluation
from hcr.pack.config import PackConfig
from hcr.pack.packer import pack
from tests.reports import evaluated, written
from tests.runs import run_to_end

CHARACTERS, WRITERS = 12, 10

# Two threads of a tiny network wait for each other more than they work, most of all on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HCR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GNT files of 12 characters by 8 training and 2 test writers."""
    folder = tmp_path_factory.mktemp("raw") / "small"
    draw_corpus(folder, spread(Charset.level1(), CHARACTERS), writers=WRITERS, seed=7)
    return folder


@pytest.fixture(scope="session")
def small_pack(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That corpus as a pack of 32 px: 84 train, 12 val, 24 test. Do not change it."""
    out = tmp_path_factory.mktemp("packed") / "small-32"
    corpus = find_corpus([corpus_folder], allowed=None, numbering=Charset.level1())
    pack(corpus, out, PackConfig(size=32))
    return out


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return evaluated(tmp_path_factory.mktemp("evaluated"))


@pytest.fixture(scope="session")
def report(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(evaluation, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def real() -> Path:
    """Real handwriting, which is not part of the project."""
    folder = Path(__file__).parents[2] / "shared" / "real"
    if not folder.is_dir():
        pytest.skip("no real handwriting beside this checkout")
    return folder


@pytest.fixture(scope="session")
def whole(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped: 3 epochs of 4 steps. Do not change it."""
    run = tmp_path_factory.mktemp("whole") / "run"
    run_to_end(small_pack, run)
    return run
