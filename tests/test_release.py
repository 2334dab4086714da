"""Releasing: a run becomes a file with its recipe, figures and past; the file that the package has; the card."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from hcr.charset import Charset
from hcr.cli.predict import main as hcr_predict
from hcr.errors import DataError, UsageError
from hcr.feed.degrade import degrade
from hcr.feed.sampler import SequentialBatches
from hcr.feed.synthetic import TRAINING_WRITERS, SyntheticBatches
from hcr.layout import RELEASED
from hcr.models import Recognizer, load_recognizer
from hcr.models.fine_tuning import classifier, transfer
from hcr.models.released import read_released, weights_digest
from hcr.preprocess.fit import PREPROCESSING
from hcr.training import Execution, TrainConfig, train
from tests.runs import GIVEN, Watcher, load_script
from tests.test_docs import described
from tests.test_released import drawn, metadata_of

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that releases, as a module."""
    return load_script("pipelines/release.py")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Path:
    """A folder with a run that learnt from drawings of the corpus's characters."""
    folder = tmp_path_factory.mktemp("here")
    characters = json.loads((corpus_folder / "drawn.json").read_text())["characters"]
    (folder / "chars.txt").write_text("\n".join(characters), "utf-8")
    given = GIVEN | {"draw": 80, "size": 32, "epochs": 1, "charset": str(folder / "chars.txt")}
    train(TrainConfig(**given), None, folder / "artifacts/drawn", Execution("cpu"), Watcher(), resume=False)
    return folder


def test_formats_md_describes_it(
    script: ModuleType, here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(here)
    script.release("drawn", tmp_path / "a.safetensors", None)
    metadata = metadata_of(tmp_path / "a.safetensors")
    assert set(metadata) | set(json.loads(metadata["training"])) <= described("Released weights")


# --- the released file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", RELEASED)
def test_the_package_has_weights_that_say_all_about_themselves(charset: str) -> None:
    path = RELEASED[charset]
    assert path.stat().st_size <= 10_000_000
    content = read_released(path)
    model = load_recognizer(path)
    assert model.charset == Charset.named(charset)
    assert content["preprocessing"] == PREPROCESSING and content["licence"].startswith("Apache-2.0")
    training = content["training"]
    assert training["config"]["draw"] > 0 and training["pack"]["train"].startswith("pen ")
    assert training["pictures"] == training["steps"] * training["config"]["batch_size"] > 0
    assert training["seconds"] > 0 and training["machines"] and training["versions"]["torch"]
    if content["figures"]:
        assert content["figures"]["weights"] == weights_digest(model.state_dict())
        assert content["figures"]["classes"] == len(model.charset)


def test_the_model_card_says_what_the_file_says(script: ModuleType) -> None:
    card = (ROOT / "docs/model-card.md").read_text("utf-8")
    assert script.card_table(list(RELEASED.values())) in card, "run python pipelines/release.py"
    for path in RELEASED.values():
        assert f"`{path.name}`, {path.stat().st_size / 1e6:.2f} MB" in card


@pytest.mark.parametrize("charset", RELEASED)
def test_predict_answers_from_an_empty_folder(charset: str, tmp_path: Path) -> None:
    model = load_recognizer(RELEASED[charset])
    char = model.charset[0]
    picture = drawn(Charset(char), 1, 80)[0, 0].numpy()
    (tmp_path / "empty").mkdir()
    Image.fromarray(picture).save(tmp_path / "picture.png")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HTTPS_PROXY": "http://127.0.0.1:9", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", "from hcr.cli.predict import main; main()", "../picture.png", "--json"]
    command += [] if charset == "level1" else ["--charset", charset]
    done = subprocess.run(
        [*command, "--device", "cpu"],
        cwd=tmp_path / "empty",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stdout.splitlines()
    answer = json.loads(line)
    assert answer["path"] == "../picture.png" and len(answer["top"]) == 5
    assert all(entry["char"] in model.charset for entry in answer["top"])
    expected = f"model: released weights, {charset}, {model.arch}, {len(model.charset):,} characters, {model.size} px"
    assert done.stderr.splitlines() == [expected]
    assert not list((tmp_path / "empty").iterdir())


def test_runs_do_not_answer_unless_they_are_named(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    Image.new("L", (40, 40), 255).save(tmp_path / "blank.png")
    said = []
    for choice in ([], ["--run", "drawn"]):
        done = CliRunner().invoke(hcr_predict, [str(tmp_path / "blank.png"), "--top", "1", *choice])
        assert done.exit_code == 0, done.stderr
        said.append(done.stderr.strip())
    assert said[0].startswith("model: released weights, ")
    assert said[1] == "model: artifacts/drawn/checkpoints/best.pt, compact, 12 characters, 32 px"


def test_weights_are_chosen_in_one_way(tmp_path: Path) -> None:
    Image.new("L", (40, 40), 255).save(tmp_path / "blank.png")
    done = CliRunner().invoke(hcr_predict, [str(tmp_path / "blank.png"), "--charset", "gb2312", "--run", "mine"])
    assert done.exit_code == 2
    said = "error: --run, --weights and --charset exclude each other; --weights takes what the others take"
    assert said in done.stderr


# --- releasing a run --------------------------------------------------------------------------------------------------


def test_a_run_is_released_with_its_recipe_and_figures(
    script: ModuleType, here: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    out, figures = tmp_path / "out.safetensors", tmp_path / "figures.json"
    script.release("drawn", out, None)
    training = read_released(out)["training"]
    assert training["config"]["draw"] == 80 and training["before"] is None and training["steps"] == 4
    assert training["pictures"] == 80 and len(training["machines"]) == 1
    assert re.fullmatch(rf"Linux {os.uname().machine}.*, \d+ threads?", training["machines"][0])
    assert training["validation"]["val_n"] == 20 and training["pack"]["train"].startswith("pen ")
    assert training["mean_with"] == [] and training["temperature"] > 0
    table = script.card_table([out])
    assert "| weights | the last run's |" in table
    assert "not yet measured" in table and "| trained on | 80 drawn pictures in 1 run, " in table
    assert "| checkpoint | selected on drawn handwriting |" in table
    later = {"steps": training["steps"] + 1}
    assert script.judge_of(training | later) == "the last; none was selected" == script.judge_of({"validation": None})
    assert script.judge_of(training | {"pack": {"val": "0123456789abcdef"}}) == "selected on a pack"

    command = [sys.executable, str(ROOT / "benchmarks/real.py"), str(corpus_folder), "--weights", str(out)]
    done = subprocess.run([*command, "--json", str(figures), "--repeats", "5"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    script.release("drawn", out, figures)
    measured = json.loads(figures.read_text())
    assert read_released(out)["figures"] == measured
    assert set(measured) | set(measured["worst"][0]) <= described("Released weights")
    table = script.card_table([out])
    assert f"| scores | mean score {measured['mean_score']:.1%}, calibration error " in table
    assert f"| top-1 | {measured['top1']:.2%} (" in table and f"| top-5 | {measured['top5']:.2%} |" in table
    assert "| measured on | 120 pictures of 12 characters in real handwriting, all 12 being possible" in table

    figures.write_text(json.dumps(measured | {"weights": "0123456789abcdef"}))
    with pytest.raises(DataError, match="figures of the weights 0123456789abcdef, expected "):
        script.release("drawn", out, figures)
    assert read_released(out)["figures"] == measured


def test_what_a_run_began_with_is_told(
    script: ModuleType, here: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    given = json.loads(Path("artifacts/drawn/run.json").read_text())["config"] | {"seed": 9}
    for name, init in {
        "second": Path("artifacts/drawn/checkpoints/best.pt"),
        "third": tmp_path / "second.safetensors",
        "tuned": whole / "checkpoints/best.pt",
        "unknown": shutil.copy("artifacts/drawn/checkpoints/best.pt", tmp_path),
    }.items():
        train(
            TrainConfig(**given),
            None,
            Path("artifacts", name),
            Execution("cpu"),
            Watcher(),
            resume=False,
            init=Path(init),
        )
        if name == "second":
            script.release(name, tmp_path / "second.safetensors", None)
    script.release("third", tmp_path / "third.safetensors", None)
    runs = script.stages(read_released(tmp_path / "third.safetensors")["training"])
    assert [run["config"]["seed"] for run in runs] == [GIVEN["seed"], 9, 9]
    assert "| trained on | 240 drawn pictures in 3 runs, " in script.card_table([tmp_path / "third.safetensors"])
    for name, message in {
        "tuned": "only what learnt from drawings",
        "unknown": "no run.json says what these had",
    }.items():
        with pytest.raises(UsageError, match=message):
            script.release(name, tmp_path / "out.safetensors", None)


def test_whom_a_run_learnt_from_is_told(
    script: ModuleType, here: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    given = json.loads(Path("artifacts/drawn/run.json").read_text())["config"]
    best, file, out = (
        Path("artifacts/drawn/checkpoints/best.pt"),
        tmp_path / "a.safetensors",
        tmp_path / "b.safetensors",
    )
    script.release("drawn", file, None)
    taught = {"pupil": (best, None), "of-file": (file, "pupil"), "of-pack": (whole / "checkpoints/best.pt", None)}
    for seed, (name, (teacher, before)) in enumerate(taught.items(), 21):
        settings = given | {"seed": seed, "teacher": str(teacher)}
        init = before and Path("artifacts", before, "checkpoints/best.pt")
        train(
            TrainConfig(**settings), None, Path("artifacts", name), Execution("cpu"), Watcher(), resume=False, init=init
        )
    script.release("of-file", out, None)
    training = read_released(out)["training"]
    # The file's weights were scaled, so that they stand beside those of the run that it is of.
    first, pupil, scaled = training["runs"]
    assert [run["config"]["seed"] for run in training["runs"]] == [GIVEN["seed"], 21, GIVEN["seed"]]
    assert (training["before"], training["teacher"]) == (1, 2) and "temperature" in scaled
    assert (pupil["before"], pupil["teacher"]) == (None, 0) and first["teacher"] is None
    assert training["config"]["teacher"] == "a.safetensors" and pupil["config"]["teacher"] == "best.pt"
    assert [run["config"]["seed"] for run in script.stages(training)] == [GIVEN["seed"], 21, 22]
    with pytest.raises(UsageError, match="only what learnt from drawings can be released"):
        script.release("of-pack", out, None)
    script.release("pupil", file, None)
    with pytest.raises(
        DataError, match=r"a\.safetensors: weights \w{16}, but the run learnt from \w{16}; put those back"
    ):
        script.release("of-file", out, None)
    assert read_released(out)["training"] == training


def test_what_was_released_before_there_were_teachers_counts_once(script: ModuleType) -> None:
    runs: list[dict[str, object]] = []
    record = {"before": None, "mean_with": [], "steps": 4, "runs": []}
    assert script._placed(record, runs) == script._placed(record | {"teacher": None}, runs) == 0
    assert runs == [{"before": None, "teacher": None, "mean_with": [], "steps": 4}]


def test_the_mean_of_runs(script: ModuleType, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    given = json.loads(Path("artifacts/drawn/run.json").read_text())["config"]
    weights = {name: Path("artifacts", name, "checkpoints/best.pt") for name in ("drawn", "on", "off")}
    for name, seed in {"on": 11, "off": 12}.items():
        settings = given | {"seed": seed}
        train(
            TrainConfig(**settings),
            None,
            Path("artifacts", name),
            Execution("cpu"),
            Watcher(),
            resume=False,
            init=weights["drawn"],
        )
    out = tmp_path / "mean.safetensors"
    script.release("on", out, None, others=["off", "drawn"])
    training = read_released(out)["training"]
    assert [training["runs"][place]["config"]["seed"] for place in training["mean_with"]] == [12, GIVEN["seed"]]
    assert [run["config"]["seed"] for run in script.stages(training)] == [GIVEN["seed"], 12, 11]
    table = script.card_table([out])
    assert "| weights | mean of 3 runs' |" in table and "| trained on | 240 drawn pictures in 3 runs, " in table
    divisor = dict.fromkeys(classifier(load_recognizer(out)), training["temperature"])
    mean, *states = (load_recognizer(path).state_dict() for path in (out, *weights.values()))
    for key, value in mean.items():
        if value.is_floating_point():
            expected = sum(state[key] for state in states) / 3 / divisor.get(key, 1)
            assert torch.allclose(value, expected, rtol=1e-3, atol=1e-6)
    assert not any(
        torch.allclose(state["backbone.features.1.0.weight"], states[0]["backbone.features.1.0.weight"], rtol=1e-3)
        for state in states[1:]
    )


def test_a_checkpoint_is_released_by_its_path(
    script: ModuleType, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    (last,) = Path("artifacts/drawn/checkpoints").glob("step-*.pt")
    named, by_path = tmp_path / "named.safetensors", tmp_path / "path.safetensors"
    script.release("drawn", named, None)
    script.release(str(last), by_path, None)
    assert read_released(by_path)["training"]["steps"] == 4
    assert by_path.read_bytes() == named.read_bytes(), "of one epoch the last weights are the best ones"


def test_a_mean_with_a_released_file_takes_its_logits_as_they_were(
    script: ModuleType, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    given = json.loads(Path("artifacts/drawn/run.json").read_text())["config"] | {"seed": 14}
    began = Path("artifacts/drawn/checkpoints/best.pt")
    train(TrainConfig(**given), None, Path("artifacts/later"), Execution("cpu"), Watcher(), resume=False, init=began)
    with monkeypatch.context() as patch:
        patch.setattr(script, "temperature", lambda model, seed: 0.25)
        script.release("drawn", tmp_path / "earlier.safetensors", None, others=["later"])
    released, both = tmp_path / "released.safetensors", tmp_path / "both.safetensors"
    script.release("later", released, None, others=[str(tmp_path / "earlier.safetensors")])
    script.release("later", both, None, others=["later", "later", "drawn"])
    found, expected = (load_recognizer(path).state_dict() for path in (released, both))
    divisor = {path: read_released(path)["training"]["temperature"] for path in (released, both)}
    rows = "backbone.head.2.weight"
    assert torch.allclose(found[rows] * divisor[released], expected[rows] * divisor[both], rtol=2e-3, atol=1e-5)
    training = read_released(released)["training"]
    assert [run["config"]["seed"] for run in script.stages(training)] == [GIVEN["seed"], 14]
    # Each training once, however many others go back to it: drawn, later, earlier, which is a mean of the two.
    assert [(run["before"], run["mean_with"]) for run in training["runs"]] == [(None, []), (0, []), (None, [1])]
    assert (training["before"], training["mean_with"]) == (0, [2])
    assert "| weights | mean of 2 runs', of which one is a mean of 2 |" in script.card_table([released])


def test_a_mean_with_weights_of_more_characters_or_fewer(
    script: ModuleType, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    given = json.loads(Path("artifacts/drawn/run.json").read_text())["config"]
    whole = load_recognizer(Path("artifacts/drawn/checkpoints/best.pt"))
    Path("fewer.txt").write_text("\n".join(whole.charset.characters[1:4]), "utf-8")
    settings = given | {"charset": str(Path("fewer.txt").resolve()), "seed": 13}
    began = Path("artifacts/drawn/checkpoints/best.pt")
    train(TrainConfig(**settings), None, Path("artifacts/fewer"), Execution("cpu"), Watcher(), resume=False, init=began)
    out = tmp_path / "mean.safetensors"
    script.release("fewer", out, None, others=["drawn"])
    mean, own = load_recognizer(out), load_recognizer(Path("artifacts/fewer/checkpoints/best.pt"))
    rows = "backbone.head.2.weight"
    expected = (own.state_dict()[rows] + whole.state_dict()[rows][1:4]) / 2
    expected /= read_released(out)["training"]["temperature"]
    assert torch.allclose(mean.state_dict()[rows], expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(UsageError, match="lacks 9 of the characters; leave it out of the mean"):
        script.release("drawn", out, None, others=["fewer"])


def test_scores_are_made_probabilities(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "CALIBRATED_BY", 1024)
    model = Recognizer("compact", Charset(Charset.level1().characters[:300]), 64)
    transfer(model, RELEASED["level1"])
    divisor = script.temperature(model, seed=0)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key in classifier(model):
                value *= 3 / divisor
    assert script.temperature(model, seed=0) == pytest.approx(3, abs=0.01)

    batches = SyntheticBatches(
        model.charset.characters, SequentialBatches(512, 256), writers=TRAINING_WRITERS, seed=1, size=model.size
    )
    score, hit = [], []
    with torch.inference_mode():
        for step, batch in enumerate(batches):
            best = (model(degrade(batch.images, seed=1, step=step)) / 3).softmax(1).max(1)
            score.append(best.values)
            hit.append(best.indices == batch.labels)
    # The accuracy of 512 pictures has a standard error of a point.
    assert float(torch.cat(score).mean()) == pytest.approx(float(torch.cat(hit).float().mean()), abs=0.03)


def test_a_run_of_other_characters_needs_a_name_for_its_file(
    script: ModuleType, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    with pytest.raises(UsageError, match="its characters are neither level1 nor gb2312; name a file with --out"):
        script.file_of("drawn")


def test_what_learnt_from_a_pack_is_not_released(
    script: ModuleType, here: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, "artifacts/packed")
    shutil.copytree(here / "artifacts/drawn", "artifacts/drawn")
    for name, others in {"packed": [], "drawn": ["packed"]}.items():
        with pytest.raises(UsageError, match=r"packed: learnt from .*; only what learnt from drawings can be released"):
            script.release(name, tmp_path / "out.safetensors", None, others=others)
    assert not (tmp_path / "out.safetensors").exists()


def test_the_card_keeps_all_but_the_table(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = tmp_path / "card.md"
    shutil.copy(ROOT / "docs/model-card.md", card)
    monkeypatch.setattr(script, "CARD", card)
    before = card.read_text("utf-8")
    script.write_card()
    assert card.read_text("utf-8") == before
    card.write_text(before.replace("| file |", "| fiel |"), "utf-8")
    script.write_card()
    assert card.read_text("utf-8") == before
