"""The package as pip builds it: a stranger's `pip install .` has everything that the checkout has."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_is_complete_and_works_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("hcr-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
        archive.extractall(tmp_path / "site")
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hcr").rglob("*.py")}
    page = {f"hcr/evaluation/page/report.{kind}" for kind in ("html", "css", "js")}
    released = "hcr/models/released/compact.safetensors"
    assert modules | page | {"hcr/synth/strokes.bin", "hcr/synth/ARPHICPL.TXT", released, "hcr/py.typed"} <= names
    assert not any(name.startswith("tests") for name in names)
    scripts = {line.split(" ")[0] for line in entry_points.splitlines()}
    assert scripts >= {"hcr", "hcr-data", "hcr-train", "hcr-eval", "hcr-predict"}
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import hcr; print(hcr.__file__); "
    code += "from hcr.synth import StrokeTable; print(len(StrokeTable.load().characters))"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(tmp_path / "site/hcr/__init__.py"), "9574"]
    assert (tmp_path / "site" / released).read_bytes() == (ROOT / released).read_bytes()


def test_make_install_says_first_what_takes_so_long_and_lets_pip_speak() -> None:
    command = ["make", "--dry-run", "--always-make", "install"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    said = [number for number, line in enumerate(lines) if line.startswith("echo") and "3 GB to download" in line]
    (long,) = (number for number, line in enumerate(lines) if "--editable '.[dev]'" in line)
    assert said and said[0] < long and "--quiet" not in lines[long]
