"""Docs that cannot go stale unnoticed: commands, links, the README's promises, what formats.md names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from hcr.pack.store import close_packs
from tests.test_architecture import LAYERS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_cli_md_is_what_the_commands_say() -> None:
    code = "import sys; sys.path.insert(0, 'pipelines'); import write_cli_docs as w; sys.stdout.write(w.document())"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert run.stdout.decode() == (ROOT / "docs/cli.md").read_text("utf-8"), "run python pipelines/write_cli_docs.py"


def test_the_strip_shows_what_the_model_reads_now() -> None:
    code = "import sys; sys.path.insert(0, 'pipelines'); import draw_strip as d; sys.stdout.write(d.document())"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    texts = (run.stdout.decode(), (ROOT / "docs/images/strip.svg").read_text("utf-8"))
    drawn, kept = (re.findall(r"<text(?: class=\"one\")? x=\"[^>]*>(.)</text>", text) for text in texts)
    assert drawn == kept and len(kept) == 16, "run python pipelines/draw_strip.py"


def anchors(page: Path) -> set[str]:
    """What GitHub names the headings of a page in links: lower case, no punctuation, a number behind repetitions."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
    names: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        names.append(f"{name}-{names.count(name)}" if name in names else name)
    return set(names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(path), f"{page.name}: {target}#{anchor}"


def test_the_readme_begins_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert text.index("make demo") < text.index("make test") < text.index("\n## ")


def test_architecture_md_shows_every_package_and_its_layer() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    tree = text[text.index("```\nhcr/") :].split("\n```")[0]
    shown = set(re.findall(r"^  ([\w.]+)/? ", tree, re.M))
    # A folder that was renamed may still hold compiled files.
    packages = {entry.name for entry in (ROOT / "hcr").iterdir() if entry.is_file() or any(entry.glob("*.py"))}
    assert shown == packages - {"__init__.py"}
    layers = re.findall(r"^\| (\d+) \| (.+) \|$", text, re.M)
    assert [(int(number), tuple(re.findall(r"`(\w+)`", packages))) for number, packages in layers] == list(
        enumerate(LAYERS, 1)
    )


def test_make_help_names_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("install", "dataset", "demo", "test", "lint", "clean", "help"):
        assert f"make {target} " in shown
    assert subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout == shown


def described(section: str) -> set[str]:
    """The names in a section of formats.md; of `block/00000000` the part before the slash."""
    text = (ROOT / "docs/formats.md").read_text("utf-8")
    part = text[text.index(f"## {section}") :].split("\n## ")[0]
    part = re.sub(r"```.*?```", "", part, flags=re.S)
    return {name.split("/")[0] for name in re.findall(r"`([^`]+)`", part)}


def test_formats_md_describes_packs_as_written(small_pack: Path) -> None:
    close_packs()
    env = lmdb.open(str(small_pack / "train.lmdb"), subdir=False, readonly=True, lock=False)
    with env.begin() as transaction:
        keys = {bytes(key).decode().split("/")[0] for key, _ in transaction.cursor()}
        meta = json.loads(transaction.get(b"meta"))
    env.close()
    assert keys | set(meta) | set(meta["sources"][0]) <= described("Pack")


def test_formats_md_describes_runs_as_written(small_pack: Path, tmp_path: Path) -> None:
    from hcr.evaluation import evaluate_checkpoint, write_report
    from hcr.layout import checkpoints
    from hcr.models import read_checkpoint
    from hcr.training import Execution, TrainConfig, train
    from tests.runs import GIVEN, Watcher

    run = tmp_path / "run"
    train(TrainConfig(**GIVEN | {"epochs": 1}), small_pack, run, Execution("cpu"), Watcher(), resume=False)
    content = read_checkpoint(checkpoints(run)[0])
    assert set(content) <= described("Checkpoint")
    row = json.loads((run / "metrics.jsonl").read_text())
    record = json.loads((run / "run.json").read_text())
    assert set(row) | set(record) | {path.name for path in run.iterdir()} <= described("Run folder")
    write_report(run / "eval", evaluate_checkpoint(checkpoints(run)[0], small_pack, "test"))
    columns = (run / "eval/per_class.csv").read_text("utf-8-sig").splitlines()[0].split(",")
    columns += (run / "eval/confusions.csv").read_text("utf-8-sig").splitlines()[0].split(",")
    summary = json.loads((run / "eval/summary.json").read_text())
    files = {path.name for path in (run / "eval").iterdir()}
    assert set(columns) | set(summary) | files <= described("Evaluation")


def test_scaling_md_counts_parameters_and_bytes_as_they_are() -> None:
    import torch

    from hcr.charset import Charset
    from hcr.models import Recognizer

    text = (ROOT / "docs/scaling.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)`[^|]* \| ([\d,]+) \| (.* MB) \|$", text, re.M)
    assert [name for name, *_ in rows] == ["compact", "efficientnet_v2_s", "vgg19_bn"]
    for name, stated, columns in rows:
        with torch.device("meta"):
            model = Recognizer(name, Charset.level1(), 32)
        count = sum(parameter.numel() for parameter in model.parameters())
        # 4 bytes a parameter; a ring of N sends 2 (N - 1) / N of that.
        sent = [4e-6 * count, *(4e-6 * count * 2 * (n - 1) / n for n in (2, 8, 64, 512))]
        assert (f"{count:,}", " | ".join(f"{size:.1f} MB" for size in sent)) == (stated, columns), name


@pytest.mark.parametrize("page", ["model-card.md", "results.md"])
def test_pages_say_what_the_look_alikes_are_and_were_used_for(page: str) -> None:
    text = " ".join((ROOT / "docs" / page).read_text("utf-8").split())
    assert "68 characters built on few radicals (宀 土 山 广), such as 宇, 客, 垃 and 峰" in text
    assert "generator's settings and the preprocessing were chosen with" in text and "optimistic" in text
    assert "is no HWDB1.1 test score" in text


def test_the_model_card_is_what_the_files_say() -> None:
    code = (
        "import sys; sys.path.insert(0, 'pipelines'); import release as r; print(r.card_table([*r.RELEASED.values()]))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert run.stdout.decode() in (ROOT / "docs/model-card.md").read_text("utf-8")


def test_formats_md_names_the_cache_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    from hcr.layout import cache_folder
    from hcr.synth.fonts.cache import _MOST

    monkeypatch.delenv("HCR_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    folder = f"~/{cache_folder().relative_to(Path.home())}"
    assert {"$HCR_CACHE", "$XDG_CACHE_HOME", "~"} <= described("Cache") and f"`{folder}`" in (
        ROOT / "docs/formats.md"
    ).read_text("utf-8")
    shown = " ".join((ROOT / "docs/cli.md").read_text("utf-8").split())
    assert f"Cached in $HCR_CACHE, or else {folder} (up to {_MOST >> 30} GiB)" in shown
