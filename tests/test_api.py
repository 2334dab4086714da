"""`import hcr`: what it offers, what it costs, and that every example in README, docs and docstrings runs."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
import torch
from PIL import Image

import hcr
from hcr.charset import Charset
from hcr.corpus.find import find_corpus
from hcr.corpus.gnt import read_gnt
from hcr.corpus.sample import Sample
from hcr.models.released import weights_digest
from hcr.pack.packer import PackConfig, pack
from hcr.pack.store import close_packs

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it: data/packed/hwdb1.1-64 (12 of the 3,755 characters occur), photo.jpg and scans/."""
    folder = tmp_path_factory.mktemp("place")
    corpus = find_corpus([corpus_folder], allowed=None, numbering=Charset.level1())
    pack(corpus, folder / "data/packed/hwdb1.1-64", PackConfig(64, Charset.level1(), fixed=True))
    (folder / "scans").mkdir()
    raw = next((corpus_folder / "test").glob("*.gnt")).read_bytes()
    samples = [sample for sample in read_gnt(raw, writer="w", name="n") if isinstance(sample, Sample)]
    for number, sample in enumerate(samples[:3]):
        Image.fromarray(sample.picture).save(folder / f"scans/{number}.png")
    Image.fromarray(samples[0].picture).convert("RGB").save(folder / "photo.jpg")
    (folder / "truth.json").write_text(json.dumps([sample.char for sample in samples[:3]]))
    return folder


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, hcr; dir(hcr); print([m for m in ('torch', 'numpy', 'PIL', 'click', 'lmdb') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_everything_public_is_there_and_says_how_it_is_used() -> None:
    for name in hcr.__all__:
        value = getattr(hcr, name)
        text = inspect.getdoc(value) or ""
        assert text, name
        if not (inspect.isclass(value) and issubclass(value, BaseException)):
            assert "\nExample:\n" in text, f"hcr.{name} has no example"
    with pytest.raises(AttributeError, match="module 'hcr' has no attribute 'lode'"):
        hcr.lode  # noqa: B018
    assert (ROOT / "hcr/py.typed").is_file()


def test_api_md_is_what_the_docstrings_say() -> None:
    code = "import sys; sys.path.insert(0, 'pipelines'); import write_api_docs as w; sys.stdout.write(w.document())"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert run.stdout.decode() == (ROOT / "docs/api.md").read_text("utf-8"), "run python pipelines/write_api_docs.py"


def test_whatever_api_md_shows_has_an_example() -> None:
    sections = (ROOT / "docs/api.md").read_text("utf-8").split("\n## ")[1:]
    parts = [part for section in sections for part in section.split("\n### ")]
    assert len(parts) > len(hcr.__all__)
    for part in parts:
        head = part.partition("\n")[0]
        name = head.strip("`").partition("(")[0].removeprefix("hcr.")
        error = inspect.isclass(value := getattr(hcr, name, None)) and issubclass(value, BaseException)
        assert error or "\n```python\n" in part, head


def page_examples() -> Iterator[tuple[str, str]]:
    """Name and text of each block of Python in README and docs but docs/api.md's, whose blocks are the docstrings'."""
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        found = re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.S)
        for number, text in enumerate(found[:1] if path.name == "api.md" else found, 1):
            yield f"{path.name}-{number}", text


def docstring_examples() -> Iterator[tuple[str, str]]:
    """Name and text of each example in the docstrings of what is public, methods included."""
    for name in hcr.__all__:
        value = getattr(hcr, name)
        members = [(name, value)]
        if inspect.isclass(value):
            methods = [
                (key, m) for key, m in vars(value).items() if isinstance(m, FunctionType | classmethod | property)
            ]
            members += [(f"{name}.{key}", member) for key, member in methods if not key.startswith("_")]
        for shown, member in members:
            _, _, example = (inspect.getdoc(member) or "").partition("\nExample:\n")
            if example:
                yield shown, textwrap.dedent(example)


EXAMPLES = dict([*page_examples(), *docstring_examples()])


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    # formats.md opens a pack without hcr, and LMDB opens a file once a process.
    close_packs()
    exec(compile(EXAMPLES[name], name, "exec"), {"hcr": hcr, "torch": torch, "np": np})


def test_a_model_reads_what_was_drawn(place: Path) -> None:
    truth = json.loads((place / "truth.json").read_text())
    answers = list(hcr.load().read_many(sorted((place / "scans").iterdir())))
    assert [answer[0][0] for answer in answers if not isinstance(answer, hcr.DataError)] == truth


def test_a_pack_is_a_dataset_of_pictures_and_characters(place: Path) -> None:
    folder = place / "data/packed/hwdb1.1-64"
    named, numbered = hcr.open_pack(folder), hcr.open_pack(str(folder), "test", target="label")
    picture, character = named[0]
    assert picture.shape == (64, 64) and picture.dtype == np.uint8 and picture.max() == 255
    assert character == Charset.level1()[int(named.labels[0])] and numbered[0][1] == int(named.labels[0])
    assert np.array_equal(named[-1][0], named[len(named) - 1][0])
    with pytest.raises(IndexError):
        named[len(named)]
    loader = torch.utils.data.DataLoader(numbered, batch_size=7, num_workers=2)
    labels = torch.cat([labels for images, labels in loader if images.dtype == torch.uint8])
    assert labels.tolist() == named.labels.tolist()
    with pytest.raises(hcr.UsageError, match="no split 'tests'; it has train, val, test"):
        hcr.open_pack(folder, "tests")


def test_evaluate_counts_what_read_answers(place: Path) -> None:
    pack, model = hcr.open_pack(place / "data/packed/hwdb1.1-64"), hcr.load()
    found = hcr.evaluate(model, pack)
    answers = model.predict([picture for picture, _ in pack], 5)
    first = [answer[0][0] == character for answer, (_, character) in zip(answers, pack, strict=True)]
    assert found.summary.n == len(pack) == 24
    assert found.top1 == np.mean(first) > 0.5 and found.top5 >= found.top1


def test_evaluate_judges_the_network_in_memory(place: Path) -> None:
    pack, model, same = hcr.open_pack(place / "data/packed/hwdb1.1-64"), hcr.load(), hcr.load()
    with torch.no_grad():
        for layer in model.recognizer.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.neg_()
    changed, whole = hcr.evaluate(model, pack), hcr.evaluate(same, pack)
    answers = model.predict([picture for picture, _ in pack], 1)
    first = [answer[0][0] == character for answer, (_, character) in zip(answers, pack, strict=True)]
    assert changed.top1 == np.mean(first) < whole.top1
    # The file's digest stands for the file's weights alone.
    assert model.weights is not None
    assert whole.checkpoint_digest == hashlib.sha256(model.weights.read_bytes()).hexdigest()[:16]
    assert changed.checkpoint_digest == weights_digest(model.recognizer.state_dict()) != whole.checkpoint_digest


def test_every_command_stands_behind_hcr_and_its_own_name() -> None:
    for start in (["-m", "hcr"], ["-m", "hcr.cli.main"]):
        shown = subprocess.run([sys.executable, *start, "--help"], capture_output=True, text=True, check=True).stdout
        assert all(f"\n  {name} " in shown for name in ("data", "eval", "predict", "train"))
    for name in ("data", "eval", "predict", "train"):
        texts = [
            subprocess.run([sys.executable, "-m", *start, "--help"], capture_output=True, text=True, check=True).stdout
            for start in (["hcr", name], [f"hcr.cli.{name}"])
        ]
        assert texts[0].startswith(f"Usage: python -m hcr {name} ")
        first, second = (text.partition("\n\n")[2] for text in texts)
        assert first == second and first


def test_the_group_says_of_each_command_what_the_command_says() -> None:
    from importlib import import_module

    from hcr.cli.main import COMMANDS

    for name, text in COMMANDS.items():
        assert (import_module(f"hcr.cli.{name}").main.help or "").split("\n\n")[0].replace("\n", " ").strip() == text
