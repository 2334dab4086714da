"""What the commands advise works: each piece of advice is followed in the situation where it is printed.

The advice is taken from the output, so that a message and what it stands for cannot part.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image

from hcr.corpus.gnt import read_gnt
from hcr.corpus.sample import Sample
from hcr.pack.store import open_reader
from tests.test_cli import hcr, ok, refused

ROOT = Path(__file__).parents[1]
QUICK = ("--arch", "compact", "--epochs", 1, "--batch-size", 20, "--workers", 0, "--device", "cpu")
# Every command that a message names, by the words around it, and the test below that follows it.
FOLLOWED = {
    "next: ": "test_the_step_after_training",
    "hcr-eval --run ": "test_the_step_after_training",
    "make it with hcr-eval": "test_a_comparison_with_a_run_that_was_not_evaluated",
    "--weights level1 --data": "test_a_comparison_with_released_weights_that_were_not_evaluated",
    "train one with": "test_no_run_yet",
    "run `make dataset`": "test_nothing_to_pack_or_train_on",
    "`hcr-data pack …`": "test_several_corpora",
    "make one with `hcr-data pack": "test_a_path_that_is_no_pack",
    "make it with `hcr-data pack": "test_a_folder_that_is_no_pack",
    "make it again with hcr-data pack": "test_a_damaged_pack",
    "hcr-data verify says more": "test_a_damaged_pack",
    "make it again with hcr-eval": "test_a_comparison_with_a_damaged_file",
}
# Every flag that a message advises behind what is wrong, likewise.
FLAGS = {
    "leave it out, or give one --size": "test_one_folder_for_two_sizes",
    "leave out --weights, --robustness": "test_results_without_a_run",
    "a name of their own with --run": "test_results_without_a_run",
    "--weights takes what": "test_two_ways_to_name_weights",
    "or add --only-shared": "test_the_step_after_training_on_drawn_handwriting",
    "--only-shared scores": "test_other_characters_and_another_size",
    "with, or without, --only-shared": "test_a_comparison_over_other_characters",
    "choose one with --split": "test_the_step_after_training_without_a_test_split",
    "or give --allow-seen": "test_the_step_after_training_without_a_test_split",
    "use --device cpu": "test_no_cuda_device",
    "name one with --data": "test_nothing_to_pack_or_train_on",
    "name another --out": "test_a_pack_with_other_settings",
    "resume it with --resume": "test_a_run_that_has_checkpoints",
    "start another --run": "test_a_run_that_has_checkpoints",
    "leave --data out": "test_a_pack_without_a_val_split",
    "use --schedule cosine": "test_a_pack_without_a_val_split",
    "pack with --size": "test_other_characters_and_another_size",
    "with --skip-damaged": "test_a_damaged_file_of_a_corpus",
    "choose a wider one with --charset": "test_a_character_outside_of_the_charset",
    "draw them too with --charset": "test_a_pack_with_characters_that_are_not_drawn",
}
# Advice that needs a GPU, a full disk or memory, a signal, or data of another program version. Other files test these
# messages; here only their flags are looked up.
FLAGS_ELSEWHERE = (
    "use a smaller --arch", "number with --charset", "choose another --out", "choose another --charset",
    "use --cache none", "--shm-size", "use fewer --workers", "--max-restarts", "use --device cuda, or --dry-run",
    "or give --draw", "names what --draw draws", "says how --draw draws", "torch synchronises batch norm",
    "name that one with --data",
    "is the network for a CPU", "--resume continues", "with --resume", "with a lower --lr", "requested by --charset",
    "now --size", "name another --out, or remove it", "computes the same steps in smaller parts",
    "fastest: --batch-size",
)  # fmt: skip
# Of torchrun and of containers.
FOREIGN_FLAGS = {"--nproc-per-node", "--max-restarts", "--shm-size"}
# Messages that name a command but advise nothing.
NO_ADVICE = ("is a run of hcr-train; ", "not a checkpoint of hcr-train", "hcr-predict would remove most")


def follow(command: str, *more: object) -> Result:
    """Run a command line that was printed, in this process."""
    program, *arguments = shlex.split(command)
    return hcr(program.removeprefix("hcr-"), *arguments, *more)


def between(text: str, before: str, after: str = "`") -> str:
    """What a message has between two pieces of text."""
    assert before in text, text
    return text.split(before, 1)[1].split(after, 1)[0]


def class_folders(corpus: Path, folder: Path) -> Path:
    """The drawn corpus as folders of pictures named by their characters, without splits."""
    for file in sorted(corpus.rglob("*.gnt")):
        for number, sample in enumerate(read_gnt(file.read_bytes(), writer="", name="")):
            assert isinstance(sample, Sample)
            path = folder / sample.char / f"{file.stem}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.picture).save(path)
    return folder


@pytest.fixture(scope="module")
def place(corpus_folder: Path, small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it: a corpus, its pack, and a run of one epoch on it."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(corpus_folder, folder / "data/raw/small")
    shutil.copytree(small_pack, folder / "data/packed/small-32")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ok(hcr("train", "--run", "one", *QUICK))
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def messages(pattern: str) -> Iterator[tuple[str, str]]:
    """Where a statement stands, and its texts with … for what is filled in, for each that has `pattern` in it."""
    for path in sorted((ROOT / "hcr").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Raise | ast.Return | ast.Assign | ast.AugAssign | ast.Expr):
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            text = "…".join(part for part in texts if isinstance(part, str))
            if re.search(pattern, text):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def test_every_command_that_a_message_names_is_followed_here() -> None:
    found = dict(messages(r"\bhcr-(data|train|eval|predict)\b|`make |next: "))
    assert len(found) > 8
    for where, text in found.items():
        known = [name for words, name in FOLLOWED.items() if words in text]
        assert known or any(words in text for words in NO_ADVICE), f"{where}: follow this in tests/test_advice.py"
        assert all(name in globals() for name in known)


def test_every_flag_that_a_message_advises_is_followed_here() -> None:
    found = dict(messages(r"[;:.,] [^;]*--[a-z]"))
    assert len(found) > 40
    for where, text in found.items():
        known = [words for words in (*FLAGS, *FLAGS_ELSEWHERE, *FOLLOWED) if words in text]
        assert known, f"{where}: follow this in tests/test_advice.py: {text}"
    assert all(name in globals() for name in FLAGS.values())
    for words in FLAGS:
        assert any(words in text for text in found.values()), f"no message says {words!r}"


def test_every_flag_that_a_message_names_is_one() -> None:
    """Mistyped or renamed, a flag would be advice that no command takes."""
    commands = [importlib.import_module(f"hcr.cli.{name}").main for name in ("train", "eval", "predict", "data")]
    commands += commands[-1].commands.values()
    options = {flag for command in commands for option in command.params for flag in option.opts}
    for where, text in messages(r"--[a-z]"):
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z](?=[ ,;:.)\]`…]|$)", text):
            assert flag in options | FOREIGN_FLAGS, f"{where}: {flag} in {text!r}"


def test_the_step_after_training(here: Path) -> None:
    said = ok(hcr("train", "--run", "it's two", *QUICK))
    line = between(said, "next: ", "\n")
    assert "no test split" not in said and "n 24, top-1 " in ok(follow(line))
    assert (here / "artifacts/it's two/eval/test/report.html").is_file()


def test_the_step_after_training_without_a_test_split(empty: Path, corpus_folder: Path) -> None:
    """As typed into a shell, by the scripts themselves."""
    class_folders(corpus_folder, empty / "my pictures")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def shell(command: str) -> str:
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shell("hcr-data pack 'my pictures' --size 32 --out 'data/packed/my pack'")
    said = shell(f"hcr-train --run tr {' '.join(map(str, QUICK))}")
    line = between(said, "next: ", "\n")
    assert "no test split: these pictures chose this checkpoint, so expect more errors on others" in said
    assert shell(line).startswith("NOT A TEST: validated on this split\nartifacts/tr on data/packed/my pack val: ")
    # Without that line the errors lead there, step by step.
    first = refused(hcr("eval", "--run", "tr"), 2)
    split = between(first, "it has train, ", ": choose one with --split")
    second = refused(hcr("eval", "--run", "tr", "--split", split), 3)
    flag = between(second, "or give ", ",")
    assert (split, flag) == ("val", "--allow-seen")
    # And what it says of a test split makes one.
    for name in ("train", "test"):
        shutil.copytree("my pictures", f"split/{name}")
    assert " test samples" in ok(hcr("data", "pack", "split", "--size", 32, "--out", "data/packed/split"))


def test_the_step_after_training_on_one_split(empty: Path, corpus_folder: Path) -> None:
    ok(hcr("data", "pack", corpus_folder / "train", "--size", 32, "--val", 0))
    said = ok(hcr("train", "--run", "tr", *QUICK))
    assert "no test split: these pictures were learnt from" in said
    assert ok(follow(between(said, "next: ", "\n"))).startswith("NOT A TEST: trained on this split\n")


def test_the_step_after_training_on_drawn_handwriting(here: Path, small_pack: Path) -> None:
    Path("few.txt").write_text("\n".join("一丁七万三"), "utf-8")
    said = ok(hcr("train", "--draw", 20, "--charset", "few.txt", "--size", 32, "--run", "drawn", *QUICK))
    line = between(said, "next: ", "\n").replace("PACK", "data/packed/small-32")
    assert "or add --only-shared" in said and "--only-shared" in refused(follow(line), 3)
    assert "only the 1 shared characters" in ok(follow(line, "--only-shared"))


def test_a_comparison_with_a_run_that_was_not_evaluated(here: Path) -> None:
    shutil.copytree("artifacts/one", "artifacts/two")
    asked = ("eval", "--run", "two", "--compare", "one")
    ok(follow(between(refused(hcr(*asked), 2), "make it with ", "\n")))
    assert "against one (" in ok(hcr(*asked))


def test_the_step_after_training_on_more_characters_than_the_pack_has(here: Path, small_pack: Path) -> None:
    characters = {*open_reader(small_pack / "val.lmdb").charset.characters, "龙"}
    Path("more.txt").write_text("\n".join(sorted(characters)), "utf-8")
    drawn = ("--draw", 20, "--charset", "more.txt", "--size", 32, "--data", "data/packed/small-32")
    line = between(ok(hcr("train", *drawn, "--run", "drawn", *QUICK)), "next: ", "\n")
    assert line.endswith(" --only-shared") and "n 24, " in ok(follow(line))
    Path("same.txt").write_text("\n".join(sorted(characters - {"龙"})), "utf-8")
    line = between(ok(hcr("train", *drawn, "--charset", "same.txt", "--run", "same", *QUICK)), "next: ", "\n")
    assert "--only-shared" not in line and "n 24, " in ok(follow(line))


def test_a_comparison_with_released_weights_that_were_not_evaluated(here: Path) -> None:
    ok(hcr("data", "pack", "data/raw/small", "--size", 64, "--out", "data/packed/my pack"))
    ok(hcr("train", "--run", "it's", "--data", "data/packed/my pack", *QUICK))
    asked = ("eval", "--run", "it's", "--compare", "level1")
    command = between(refused(hcr(*asked), 2), "make it with ", "\n")
    assert command == "hcr-eval --weights level1 --data 'data/packed/my pack' --only-shared --split test"
    ok(follow(command))
    assert "against level1 (" in ok(hcr(*asked))
    # A name that nothing has cannot be evaluated; one with an apostrophe can.
    line = refused(hcr("eval", "--run", "it's", "--compare", "levl1"), 2)
    assert line.endswith("name what was evaluated: it's, level1")
    asked = ("eval", "--run", "one", "--data", "data/packed/my pack", "--compare", "it's", "--split", "val")
    command = between(refused(hcr(*asked), 2), "make it with ", "\n")
    assert command == """hcr-eval --run 'it'"'"'s' --split val"""
    assert "validated on this split" in refused(follow(command), 3)
    assert "run 'a/b': expected one plain name" in refused(hcr("eval", "--run", "one", "--compare", "a/b"), 2)


def test_a_comparison_over_other_characters(here: Path) -> None:
    Path("few.txt").write_text("\n".join(open_reader(Path("data/packed/small-32/val.lmdb")).charset.characters[:5]))
    ok(hcr("train", "--draw", 20, "--charset", "few.txt", "--size", 32, "--run", "few", *QUICK))
    ok(hcr("eval", "--run", "few", "--data", "data/packed/small-32", "--only-shared"))
    asked = ("eval", "--run", "one", "--compare", "few")
    assert "score both runs with, or without, --only-shared" in refused(hcr(*asked), 3)
    ok(hcr("eval", "--run", "one"))


def test_two_ways_to_name_weights(here: Path) -> None:
    picture = next((class_folders(Path("data/raw/small"), Path("pictures"))).rglob("*.png"))
    line = refused(hcr("predict", picture, "--run", "one", "--charset", "level1"), 2)
    flag = between(line, "exclude each other; ", " takes")
    for name in ("one", "level1"):
        ok(hcr("predict", picture, flag, name))


def test_one_folder_for_two_sizes(here: Path) -> None:
    shutil.rmtree("data/packed")
    asked = ("data", "pack", "data/raw/small", "--size", 32, "--size", 48)
    assert "leave it out, or give one --size" in refused(hcr(*asked, "--out", "both"), 2)
    ok(hcr(*asked))
    ok(hcr(*asked[:-2], "--out", "both"))


def test_a_pack_without_a_val_split(here: Path) -> None:
    ok(hcr("data", "pack", "data/raw/small", "--size", 32, "--val", 0, "--out", "plain"))
    drawn = ("train", "--draw", 20, "--size", 32, "--charset", "few.txt", "--run", "drawn", *QUICK)
    Path("few.txt").write_text("\n".join("一丁七万三"), "utf-8")
    assert "leave --data out to validate on drawn" in refused(hcr(*drawn, "--data", "plain"), 2)
    ok(hcr(*drawn))
    asked = ("train", "--data", "plain", "--run", "plain", *QUICK, "--schedule")
    ok(hcr(*asked, between(refused(hcr(*asked, "plateau"), 2), "use --schedule ", "\n")))


def test_a_damaged_file_of_a_corpus(here: Path) -> None:
    file = next(Path("data/raw/small/train").glob("*.gnt"))
    file.write_bytes(file.read_bytes()[:-10])
    asked = ("data", "pack", "data/raw/small", "--size", 32, "--out", "mended")
    ok(hcr(*asked, between(refused(hcr(*asked), 3), "pack with ", " to leave")))


def test_a_character_outside_of_the_charset(here: Path) -> None:
    class_folders(Path("data/raw/small"), Path("pictures"))
    (Path("pictures") / "鑫").mkdir()
    shutil.copy(next(Path("pictures").rglob("*.png")), "pictures/鑫/one.png")
    asked = ("data", "pack", "pictures", "--size", 32, "--out", "wide", "--charset")
    assert "choose a wider one with --charset" in refused(hcr(*asked, "level1"), 3)
    ok(hcr(*asked, "gb2312"))


def test_a_pack_with_characters_that_are_not_drawn(here: Path) -> None:
    asked = ("train", "--draw", 20, "--size", 32, "--data", "data/packed/small-32", "--run", "drawn", *QUICK)
    Path("few.txt").write_text("\n".join("一丁七万三"), "utf-8")
    assert "draw them too with --charset" in refused(hcr(*asked, "--charset", "few.txt"), 3)
    ok(hcr(*asked, "--charset", "level1"))


def test_names_are_quoted(here: Path, empty: Path) -> None:
    line = refused(hcr("train", "--data", "my pack", *QUICK), 3)
    assert between(line, "make it with `") == "hcr-data pack SOURCE --out 'my pack'"
    assert between(refused(hcr("eval", "--run", "it's"), 3), "train one with `") == """hcr-train --run 'it'"'"'s'"""
    # What the advice would name cannot be trained.
    line = refused(hcr("eval", "--run", "level1"), 3)
    assert "artifacts/level1: no checkpoint here; released weights are named with --weights level1 " in line


def test_a_comparison_with_a_damaged_file(here: Path) -> None:
    ok(hcr("eval"))
    shutil.copytree("artifacts/one", "artifacts/two")
    file = here / "artifacts/one/eval/test/predictions.npz"
    arrays = dict(np.load(file))
    np.savez(file, **{name: arrays[name] for name in arrays if name != "top"})
    asked = ("eval", "--run", "two", "--compare", "one")
    assert "lacks top; make it again with hcr-eval" in refused(hcr(*asked), 3)
    ok(hcr("eval", "--run", "one"))
    ok(hcr(*asked))


def test_no_run_yet(here: Path) -> None:
    line = refused(hcr("eval", "--run", "new"), 3)
    assert "runs with one: one" in line
    command = between(line, "train one with `")
    assert command == "hcr-train --run new" and "artifacts/new, new" in ok(follow(command, "--dry-run", *QUICK))
    shutil.rmtree("artifacts")
    assert refused(hcr("eval"), 3).endswith("train one with hcr-train")
    assert "settings, as a recipe" in ok(hcr("train", "--dry-run", *QUICK))


def test_a_run_that_has_checkpoints(here: Path) -> None:
    line = refused(hcr("train", "--run", "one", *QUICK), 2)
    assert "resume it with --resume, or name another --run" in line
    changed = refused(hcr("train", "--run", "one", *QUICK, "--resume", "--lr", 0.001), 2)
    assert "leave the flag out" in changed
    assert "done after " in ok(hcr("train", "--run", "one", *QUICK, "--resume"))
    assert "artifacts/other, new" in ok(hcr("train", "--run", "other", *QUICK, "--dry-run"))


def test_nothing_to_pack_or_train_on(empty: Path, corpus_folder: Path) -> None:
    for line in (refused(hcr("data", "pack"), 2), refused(hcr("train", *QUICK), 3)):
        command = between(line, "run `")
        # Drawing the whole corpus takes minutes; that make would do so has to do.
        done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert command == "make dataset" and done.returncode == 0 and "pipelines/dataset.sh" in done.stdout, done.stderr
    shutil.copytree(corpus_folder, "mine")
    ok(follow(between(line, "or `").replace("SOURCE", "mine"), "--size", 32))
    assert "data/packed/mine-32" in ok(hcr("train", "--dry-run", *QUICK))
    shutil.copytree("data/packed/mine-32", "elsewhere")
    assert "elsewhere" in ok(hcr("train", "--dry-run", *QUICK, "--data", "elsewhere"))


def test_several_corpora(here: Path, corpus_folder: Path) -> None:
    shutil.copytree(corpus_folder, "data/raw/two words")
    commands = re.findall(r"`(hcr-data pack [^`]*)`", refused(hcr("data", "pack"), 2))
    assert len(commands) == 2
    for number, command in enumerate(commands):
        ok(follow(command, "--size", 32, "--out", f"data/packed/{number}"))
    # Then there are several packs, and which one is meant has to be said.
    line = refused(hcr("train", *QUICK), 2)
    pack = between(line, "several packs: ", ",")
    assert "choose one with --data" in line and pack in ok(hcr("train", "--dry-run", *QUICK, "--data", pack))


def test_several_runs(here: Path) -> None:
    shutil.copytree("artifacts/one", "artifacts/two")
    line = refused(hcr("eval"), 2)
    assert "several runs: one, two; choose one with --run" in line
    ok(hcr("eval", "--run", "two"))


def test_a_folder_that_is_no_pack(here: Path) -> None:
    for asked in (("train", "--data", "new", *QUICK, "--dry-run"), ("eval", "--data", "new")):
        command = between(refused(hcr(*asked), 3), "make it with `")
        ok(follow(command.replace("SOURCE", "data/raw/small"), "--size", 32))
        ok(hcr(*asked))
        shutil.rmtree("new")


def test_a_path_that_is_no_pack(here: Path) -> None:
    Path("page.md").write_text("# Page")
    for command in ("info", "verify", "show"):
        assert refused(hcr("data", command, "page.md"), 3) == (
            "error: page.md: not a pack (expected a folder with train.lmdb, val.lmdb or test.lmdb); "
            "packs here: data/packed/small-32"
        )
    shutil.rmtree("data/packed")
    advice = between(refused(hcr("train", "--data", "page.md", "--dry-run"), 3), "make one with `")
    ok(follow(advice.replace("SOURCE", "data/raw/small"), "--size", 32))
    ok(hcr("data", "info", "data/packed/small-32"))


def test_a_damaged_pack(here: Path) -> None:
    env = lmdb.open("data/packed/small-32/test.lmdb", subdir=False)
    with env.begin(write=True) as pack:
        labels = bytearray(pack.get(b"labels"))
        labels[0] = 255  # of 12 characters
        pack.put(b"labels", bytes(labels))
    env.close()
    line = refused(hcr("data", "export", "data/packed/small-32", "--to", "gnt", "--out", "exported"), 3)
    more = hcr(*between(line, "damaged; hcr-", " says more").split(), "data/packed/small-32")
    assert more.exit_code == 3 and "test.lmdb: " in more.output
    advice = between(more.stderr, "problem; delete the pack and make it again with ", "\n")
    shutil.rmtree("data/packed/small-32")
    ok(follow(advice, "data/raw/small", "--size", 32))
    ok(hcr("data", "verify", "data/packed/small-32"))


def test_a_pack_with_other_settings(here: Path) -> None:
    asked = ("data", "pack", "data/raw/small", "--size", 32, "--seed", 3)
    assert "name another --out, or remove the folder" in refused(hcr(*asked), 2)
    ok(hcr(*asked, "--out", "data/packed/another"))
    shutil.rmtree("data/packed/small-32")
    ok(hcr(*asked))


def test_other_characters_and_another_size(here: Path) -> None:
    line = refused(hcr("train", "--run", "big", "--size", 48, *QUICK), 3)
    flag = between(line, "pack with ", "\n")
    ok(follow(f"hcr-data pack data/raw/small {flag}"))
    ok(hcr("train", "--run", "big", "--size", 48, *QUICK, "--data", "data/packed/small-48", "--dry-run"))
    ok(hcr("data", "pack", "data/raw/small", "--size", 64))
    asked = ("eval", "--weights", "level1", "--data", "data/packed/small-64")
    assert "--only-shared scores the characters that both have" in refused(hcr(*asked), 3)
    ok(hcr(*asked, "--only-shared"))


def test_results_without_a_run(here: Path) -> None:
    ok(hcr("eval"))
    shutil.copy("artifacts/one/eval/test/predictions.npz", "one.npz")
    asked = ("eval", "--predictions", "one.npz", "--data", "data/packed/small-32")
    assert "a name of their own with --run" in refused(hcr(*asked), 2)
    ok(hcr(*asked, "--run", "theirs"))
    assert "leave out --weights, --robustness and --allow-seen" in refused(hcr(*asked, "--allow-seen"), 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_no_cuda_device(here: Path) -> None:
    line = refused(hcr("eval", "--device", "cuda"), 2)
    ok(hcr("eval", *between(line, "; use ", "\n").split()))
