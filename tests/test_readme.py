"""The README's commands, copied from it and run in order in a user's folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from hcr.corpus.gnt import read_gnt
from hcr.corpus.sample import Sample

ROOT = Path(__file__).parents[1]
# The commands as they stand train for hours; one epoch shows that they work together.
SHORTER = {"hcr-train": " --epochs 1"}
# They make an environment of 6 GB, and CI has run them before it comes here.
SKIPPED = ("make demo", "make test", "make install")


def blocks() -> list[list[str]]:
    """The lines of each block of commands."""
    text = (ROOT / "README.md").read_text("utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    found = [block.splitlines() for language, block in fenced if not language]
    kept = [[line for line in block if not line.startswith(SKIPPED)] for block in found]
    return [block for block in kept if block]


@pytest.fixture(scope="module")
def home(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in a home folder that has a set of GNT files, a zip of more, class folders of PNGs, and pictures."""
    home = tmp_path_factory.mktemp("home")
    for split in ("train", "test"):
        (home / f"HWDB1.1/{split}").mkdir(parents=True)
    writers = sorted(corpus_folder.rglob("*.gnt"))
    for path in writers[:-1]:
        shutil.copy(path, home / "HWDB1.1" / path.parent.name)
    with zipfile.ZipFile(home / "competition-gnt.zip", "w") as archive:
        archive.write(writers[-1], f"test/{writers[-1].name}")
    checkout = home / "hcr"
    shutil.copytree(home / "HWDB1.1", checkout / "data/raw/HWDB1.1")
    (checkout / "scans").mkdir()
    for path in writers[:8]:
        for sample in read_gnt(path.read_bytes(), writer=path.stem, name=path.name):
            assert isinstance(sample, Sample)
            place = home / "png-folders" / sample.char / f"{path.stem}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.picture).save(place)
            Image.fromarray(sample.picture).save(checkout / "photo.jpg")
    Image.open(checkout / "photo.jpg").save(checkout / "scans/1.png")
    for name in ("Makefile", "pyproject.toml", "pipelines/dataset.sh"):
        (checkout / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    # What `make install` leaves, without the 6 GB.
    (checkout / ".venv").mkdir()
    (checkout / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (checkout / ".venv/installed").touch()
    return home


def test_the_readme_shows_commands_to_run() -> None:
    lines = [line for block in blocks() for line in block]
    for command in ("make dataset", "hcr-data pack --size 64", "hcr-train --resume", "hcr-eval --per-class report.csv"):
        assert any(line.startswith(command) for line in lines), command


def test_the_commands_run_one_after_the_other(home: Path) -> None:
    environment = os.environ | {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for line in (line for block in blocks() for line in block):
        command = line.partition("#")[0].strip()
        command += SHORTER.get(command.split(" ")[0], "") if command else ""
        done = subprocess.run(
            ["bash", "-c", command], cwd=home / "hcr", env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
