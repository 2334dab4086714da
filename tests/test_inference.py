"""hcr-predict and what it calls: files and folders in, readings or one-line errors out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw

from hcr.charset import Charset
from hcr.cli.predict import main
from hcr.errors import DataError, UsageError
from hcr.inference.predictor import BATCH, SURER, Predictor, find_pictures, load
from hcr.layout import RELEASED
from hcr.models import Recognizer, load_recognizer
from hcr.models.weights import FORMAT, VERSION
from hcr.preprocess.fit import PREPROCESSING, fit_square, open_picture, to_paper
from hcr.synth import Generator

SOME = Charset("一丁七万丈三上")
COMMAND = [sys.executable, "-c", "from hcr.cli.predict import main; main()"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint, of random weights."""
    torch.manual_seed(4)
    model = Recognizer("compact", SOME, 32)
    path = tmp_path_factory.mktemp("run") / "artifacts" / "small" / "checkpoints" / "step-00000001.pt"
    path.parent.mkdir(parents=True)
    content = {"arch": "compact", "size": 32, "characters": SOME.characters, "preprocessing": PREPROCESSING}
    torch.save({"format": FORMAT, "version": VERSION, "step": 1, **content, "ema": model.state_dict()}, path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of four pictures of several kinds, with one text file, a broken picture and hidden files."""
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    for number, (name, mode) in enumerate(
        [("b.png", "L"), ("a 二.jpg", "RGB"), ("more/c.webp", "RGBA"), ("more/d.gif", "P")]
    ):
        image = Image.new("L", (90, 70), 255)
        ImageDraw.Draw(image).line([(10, 10), (80, 20 + 10 * number), (20, 60)], fill=10, width=4 + number)
        image.convert(mode).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / "more" / "cut.png").write_bytes((folder / "b.png").read_bytes()[:60])
    (folder / ".hidden").write_text("not looked at")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "e.png").write_bytes((folder / "b.png").read_bytes())
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def error_lines(result: Result) -> list[str]:
    """What is said but for the line that names the model."""
    return [line for line in result.stderr.splitlines() if not line.startswith("model: ")]


# --- Predictor --------------------------------------------------------------------------------------------------------


def test_predictor_gives_the_models_own_softmax_in_order(weights: Path) -> None:
    model = load_recognizer(weights)
    rng = np.random.default_rng(0)
    squares = [rng.integers(0, 256, (32, 32), dtype=np.uint8) for _ in range(BATCH + 5)]
    tops = Predictor(model).predict(squares, top=3)
    with torch.inference_mode():
        expected = model(torch.from_numpy(np.stack(squares))[:, None]).softmax(1)
    assert len(tops) == BATCH + 5
    assert len({top[0][1] for top in tops}) > BATCH // 2
    for top, row in zip(tops, expected, strict=True):
        probabilities = [prob for _, prob in top]
        assert probabilities == pytest.approx(row.sort(descending=True).values[:3].tolist(), rel=1e-4)
        assert probabilities == pytest.approx([row[SOME.label(char)].item() for char, _ in top], rel=1e-4)


def test_predictor_gives_no_more_characters_than_there_are(weights: Path) -> None:
    predictor = load(weights)
    (top,) = predictor.predict([np.full((32, 32), 255, np.uint8)], top=50)
    assert sorted(char for char, _ in top) == sorted(SOME.characters)
    assert sum(prob for _, prob in top) == pytest.approx(1, abs=1e-5)
    assert predictor.predict([]) == []


def test_predictor_puts_the_model_into_eval_mode(weights: Path) -> None:
    model = load_recognizer(weights).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Predictor(model).predict([np.zeros((32, 32), np.uint8)])
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- files ------------------------------------------------------------------------------------------------------------


def test_find_pictures_takes_files_as_given_and_folders_sorted(pictures: Path, tmp_path: Path) -> None:
    absent, hidden = tmp_path / "absent.png", pictures / ".hidden"
    found = [path.relative_to(tmp_path).as_posix() for path in find_pictures([absent, pictures, hidden])]
    assert found == [
        "absent.png",
        "scans/a 二.jpg",
        "scans/b.png",
        "scans/more/c.webp",
        "scans/more/cut.png",
        "scans/more/d.gif",
        "scans/notes.txt",
        "scans/.hidden",
    ]


def test_find_pictures_does_not_follow_links_in_a_circle(pictures: Path) -> None:
    (pictures / "more" / "round").symlink_to(pictures, target_is_directory=True)
    assert len(list(find_pictures([pictures]))) == 6


def test_read_many_answers_every_file_in_its_place(weights: Path, pictures: Path) -> None:
    predictor = load(weights)
    files = list(find_pictures([pictures])) * 25
    answers = list(predictor.read_many(files))
    assert len(answers) == len(files) > 2 * BATCH
    for path, answer in zip(files, answers, strict=True):
        if path.suffix == ".txt" or path.name == "cut.png":
            assert isinstance(answer, DataError) and str(answer).startswith(f"{path}: ")
        else:
            assert not isinstance(answer, DataError)
            square = fit_square(to_paper(open_picture(path, path.name)), 32)
            expected = predictor.predict([square])[0]
            assert [char for char, _ in answer] == [char for char, _ in expected]


def test_the_surest_square_answers() -> None:
    predictor = load()
    label = torch.tensor([predictor.recognizer.charset.label("永")])
    generator = Generator(predictor.characters)
    written = generator.draw(label, torch.tensor([5]), torch.tensor([0]), seed=2, size=predictor.size)[0, 0].numpy()
    blot = np.full_like(written, 255)
    blot[20:50, 10:40] = 90
    (sure,), (unsure,) = predictor.predict([written]), predictor.predict([blot])
    assert sure[0][0] == "永" and sure[0][1] > unsure[0][1] + SURER
    answers = predictor.surest([[blot, written], [blot], [written, blot, blot], [written]])
    assert [top[0][0] for top in answers] == ["永", unsure[0][0], "永", "永"]


def test_read_many_prepares_one_batch_ahead_and_no_further(weights: Path, pictures: Path) -> None:
    asked = []

    def files():  # type: ignore[no-untyped-def]
        for number in range(1000):
            asked.append(number)
            yield pictures / "b.png"

    next(load(weights).read_many(files()))
    assert len(asked) == BATCH


# --- command ----------------------------------------------------------------------------------------------------------


def test_json_is_one_object_a_line(weights: Path, pictures: Path) -> None:
    result = run(pictures / "b.png", pictures / "a 二.jpg", "--weights", weights, "--top", 3, "--json")
    assert result.exit_code == 0
    assert result.stderr == f"model: {weights}, compact, 7 characters, 32 px\n"
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["path"] for line in lines] == [str(pictures / "b.png"), str(pictures / "a 二.jpg")]
    for line in lines:
        assert set(line) == {"path", "top"} and len(line["top"]) == 3
        probabilities = [entry["prob"] for entry in line["top"]]
        assert all(set(entry) == {"char", "prob"} and entry["char"] in SOME for entry in line["top"])
        assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1.0001
    assert any(char in result.stdout for char in SOME.characters) and "\\u" not in result.stdout


def test_bad_files_are_one_line_each_and_the_others_are_answered(weights: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run(pictures, tmp_path / "absent.png", tmp_path / "empty", "--weights", weights, "--json")
    assert result.exit_code == 3
    names = [Path(json.loads(line)["path"]).name for line in result.stdout.splitlines()]
    assert names == ["a 二.jpg", "b.png", "c.webp", "d.gif"]
    cut, notes, absent, empty = error_lines(result)
    assert cut.startswith(f"error: {pictures / 'more' / 'cut.png'}: cannot read this picture (")
    assert notes == f"error: {pictures / 'notes.txt'}: not a picture in any known format"
    assert absent == f"error: {tmp_path / 'absent.png'}: cannot read this picture (No such file or directory)"
    assert empty.startswith(f"error: {tmp_path / 'empty'}: a folder, not a picture")


def test_table_is_aligned_though_characters_are_wide(
    weights: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    result = run("b.png", "a 二.jpg", "more/c.webp", "more/d.gif", "--weights", weights, "--top", 2)
    assert result.exit_code == 0
    rows = result.stdout.splitlines()
    widths = {sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in row) for row in rows}
    assert len(rows) == 4 and len(widths) == 1
    assert all(row.count("%") == 2 for row in rows)


def test_a_run_is_found_by_its_name(weights: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(weights.parents[3])
    by_name, by_file = (
        run(pictures / "b.png", "--json", *which) for which in (["--run", "small"], ["--weights", weights])
    )
    assert by_name.exit_code == 0, by_name.stderr
    assert by_name.stdout == by_file.stdout
    assert "model: artifacts/small/checkpoints/step-00000001.pt, compact, 7 characters" in by_name.stderr
    result = run(pictures / "b.png", "--run", "other")
    assert result.exit_code == 3
    assert error_lines(result)[0].startswith("error: artifacts/other: no checkpoint here")


def test_usage_errors(weights: Path, pictures: Path) -> None:
    assert run().exit_code == 2
    assert run(pictures, "--top", 0).exit_code == 2
    result = run(pictures, "--run", "small", "--weights", weights)
    assert result.exit_code == 2
    said = "--run, --weights and --charset exclude each other; --weights takes what the others take"
    assert error_lines(result) == [f"error: {said}"]


def test_weights_that_are_none_are_an_error(pictures: Path, tmp_path: Path) -> None:
    for path, message in (
        (pictures / "b.png", "not a readable checkpoint"),
        (tmp_path / "no.pt", "no such weights"),
    ):
        result = run(pictures, "--weights", path)
        assert result.exit_code == 3 and result.stdout == ""
        (line,) = error_lines(result)
        assert line.startswith(f"error: {path}: {message}")


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes only on POSIX")
def test_output_is_utf8_whatever_the_locale_and_the_file_name(weights: Path, tmp_path: Path) -> None:
    Image.new("L", (9, 9), 255).save(tmp_path / "一.png")
    (tmp_path / os.fsdecode(b"bad\xff.png")).write_bytes((tmp_path / "一.png").read_bytes())
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [*COMMAND, str(tmp_path), "--weights", str(weights), "--json", "--top", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    paths = [json.loads(line)["path"] for line in done.stdout.decode("utf-8").splitlines()]
    assert [Path(path).name for path in paths] == ["bad\\xff.png", "一.png"]


def test_help_answers_at_once_without_torch() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([*COMMAND, "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.6  # 0.2 s on a free machine
    heavy = "import sys, hcr.cli.predict; print([m for m in ('torch', 'numpy', 'PIL', 'tqdm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True).stdout.strip() == "[]"


# --- what can be read -------------------------------------------------------------------------------------------------


def test_a_path_bytes_a_picture_and_arrays_are_read_alike(weights: Path, pictures: Path) -> None:
    model, path = load(weights), pictures / "b.png"
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L"))
        kinds = [str(path), path, path.read_bytes(), image, grey, np.stack([grey] * 3, 2)]
        kinds.append(np.dstack([grey, grey, grey, np.full_like(grey, 255)]))
        answers = [model.read(kind, top=7) for kind in kinds]
    assert all(answer == answers[0] for answer in answers) and len(answers[0]) == 7


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4), np.float32), r"picture 1: float32\[4, 4\] is no picture; give uint8\[H, W\]"),
        (np.zeros((4, 4, 2), np.uint8), r"picture 1: uint8\[4, 4, 2\] is no picture"),
        (np.zeros((0, 4), np.uint8), r"picture 1: uint8\[0, 4\] is no picture"),
        (b"no picture", "picture 1: not a picture in any known format"),
        ("absent.png", r"absent.png: cannot read this picture \(No such file or directory\)"),
        (5, "picture 1: int is no picture"),
    ],
)
def test_what_is_no_picture_is_refused(weights: Path, picture: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(weights).read(picture)


def test_an_open_picture_is_prepared_like_its_file(weights: Path, pictures: Path) -> None:
    model, cut = load(weights), pictures / "more" / "cut.png"
    with Image.open(pictures / "b.png") as image:
        turned = Image.Exif()
        turned[0x0112] = 6  # a quarter turn clockwise
        image.save(pictures / "turned.png", exif=turned)
    with Image.open(pictures / "turned.png") as image:
        assert model.read(image) == model.read(pictures / "turned.png") != model.read(pictures / "b.png")
        assert image.size == (90, 70)
    # Some decoders notice damage only when pixels are asked for; the rest of the batch is answered.
    cut.write_bytes((pictures / "b.png").read_bytes()[:-40])
    with Image.open(cut) as image:
        answers = list(model.read_many([image, pictures / "b.png", Image.new("L", (0, 5)), pictures / "b.png"]))
    assert [isinstance(answer, DataError) for answer in answers] == [True, False, True, False]
    assert str(answers[0]).startswith("picture 1: cannot read this picture (")
    assert str(answers[2]) == "picture 3: cannot read this picture (0 x 5 pixels)"
    with Image.open(pictures / "more" / "d.gif") as image:
        assert model.read(image) == model.read(image) == model.read(pictures / "more" / "d.gif")


@pytest.mark.parametrize("top", [0, -1, 2.5, "3"])
def test_a_number_of_answers_is_1_or_more(weights: Path, pictures: Path, top: Any) -> None:
    model = load(weights)
    for call in (model.read, model.read_many, model.predict):
        with pytest.raises(UsageError, match=f"top {top!r}: expected a number of answers"):
            call([] if call == model.predict else [pictures / "b.png"], top)
    assert len(model.read(pictures / "b.png", top=np.int64(2))) == 2


def test_a_name_that_means_two_things_is_refused(
    weights: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = Path("artifacts/level1/checkpoints") / weights.name
    shutil.copytree(weights.parents[1], "artifacts/level1")
    with pytest.raises(UsageError) as caught:
        load("level1")
    assert str(caught.value) == (
        f"level1: means released weights ({RELEASED['level1']}) and a run ({checkpoint}); give the path of the one"
    )
    assert len(load(RELEASED["level1"]).characters) == 3755 and load(checkpoint).characters == SOME.characters
    shutil.copy(weights, "gb2312")
    with pytest.raises(
        UsageError, match=r"gb2312: means released weights \(.*\) and a file \(.*gb2312\); give the path"
    ):
        load("gb2312")
    # Who names none gets the released ones.
    assert "model: released weights, level1, " in run(pictures / "b.png").stderr


def test_a_name_that_means_nothing_is_answered_with_those_that_do(
    weights: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(weights.parents[3])
    known = "no such weights; name a file, released weights (level1, gb2312), or a run (those with a checkpoint: small)"
    for name in ("levl1", "", "..", "../small", "a/b.pt"):
        with pytest.raises(DataError) as caught:
            load(name)
        assert str(caught.value) == f"{name or repr(name)}: {known}"
        result = run(pictures / "b.png", "--weights", name)
        assert result.exit_code == 3 and error_lines(result) == [f"error: {caught.value}"]


def test_load_takes_a_run_a_file_and_released_weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(weights.parents[3])
    assert load("small").characters == load(weights).characters == SOME.characters
    assert load().characters == Charset.level1().characters
    assert load("gb2312").characters == Charset.gb2312().characters
    with pytest.raises(DataError, match=r"none\.safetensors: no such weights"):
        load("none.safetensors")
