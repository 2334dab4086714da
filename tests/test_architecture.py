"""The layers: which package may import which, and where the heavy packages may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HCR = Path(__file__).parents[1] / "hcr"

# Lowest first. A package imports from lower layers, or from its own but not in a circle.
LAYERS = (
    ("errors", "lazy", "text"),
    ("files", "charset", "config", "layout", "records", "stop", "svg", "workers"),
    ("preprocess",),
    ("synth", "models"),
    ("corpus",),
    ("pack", "inference"),
    ("feed",),
    ("training", "evaluation"),
    ("api",),
    ("cli", "__main__"),
)
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}
ONLY_IN = {
    "torch": {"synth", "models", "inference", "feed", "training", "evaluation"},
    "torchvision": {"models"},
    "lmdb": {"pack/store.py"},
    "h5py": {"corpus/hdf5.py"},
    "timm": {"models"},
    "safetensors": {"models"},
    "click": {"cli"},
    "tqdm": {"cli"},
}
MODULES = sorted(path.relative_to(HCR).as_posix() for path in HCR.rglob("*.py"))


def package_of(module: str) -> str:
    return module.split("/")[0].removesuffix(".py")


def imports(module: str) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse((HCR / module).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}: relative import"
            yield node.module


def packages_imported(module: str) -> set[str]:
    found = {name.split(".")[1] for name in imports(module) if name.startswith("hcr.")}
    return found - {package_of(module)}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__.py"])
def test_imports_go_down(module: str) -> None:
    package = package_of(module)
    assert package in LAYER, f"{module}: a package without a layer"
    for other in packages_imported(module):
        assert LAYER[other] <= LAYER[package], f"{module} imports {other}, which is above it"


def test_no_two_packages_import_each_other() -> None:
    edges: dict[str, set[str]] = {package: set() for package in LAYER}
    for module in MODULES:
        if module != "__init__.py":
            edges[package_of(module)] |= packages_imported(module)
    remaining = dict(edges)
    while remaining:
        free = [package for package, others in remaining.items() if not others & remaining.keys()]
        assert free, f"packages import each other in a circle: {sorted(remaining)}"
        for package in free:
            del remaining[package]


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_stay_in_their_packages(module: str) -> None:
    for name in imports(module):
        allowed = ONLY_IN.get(name.split(".")[0])
        assert allowed is None or {package_of(module), module} & allowed, f"{module} imports {name}"


@pytest.mark.parametrize("name", ["metrics", "calibration", "groups", "compare"])
def test_figures_need_numpy_alone(name: str) -> None:
    standard = {"__future__", "collections.abc", "dataclasses", "math", "typing"}
    assert set(imports(f"evaluation/{name}.py")) - standard <= {"numpy", "hcr.evaluation.metrics"}


def test_evaluating_given_predictions_loads_no_torch() -> None:
    code = "import sys, hcr.evaluation; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("module", MODULES)
def test_only_commands_print_and_nothing_unpickles(module: str) -> None:
    for node in ast.walk(ast.parse((HCR / module).read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "print":
            assert package_of(module) == "cli", f"{module}: prints in line {node.lineno}"
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("load", "loads", "Unpickler"):
            of = node.func.value
            assert not (isinstance(of, ast.Name) and of.id == "pickle"), f"{module}: unpickles in line {node.lineno}"
            if isinstance(of, ast.Name) and of.id == "torch":
                safe = {k.arg: k.value for k in node.keywords}.get("weights_only")
                assert isinstance(safe, ast.Constant) and safe.value is True, f"{module}: line {node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_stay_small(module: str) -> None:
    assert len((HCR / module).read_text("utf-8").splitlines()) <= 500
