"""Learning another network's answers: the loss, exact resumes, which teachers are refused, the commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from hcr.charset import Charset
from hcr.cli.train import main
from hcr.errors import DataError, HcrError, Stopped, UsageError
from hcr.feed.sampler import Batch, SequentialBatches
from hcr.feed.synthetic import VALIDATION_WRITERS, SyntheticBatches
from hcr.layout import checkpoints
from hcr.models import Recognizer, load_recognizer, read_checkpoint
from hcr.models.released import weights_digest, write_released
from hcr.preprocess.fit import PREPROCESSING
from hcr.synth.pages import are_pages
from hcr.training import Execution, TrainConfig, train
from hcr.training.distributed import Processes
from hcr.training.setup import RunSetup, set_up_run
from hcr.training.step import Stepper, Teacher
from tests.runs import GIVEN, Watcher, end_of, require_equal

# What the teacher knows; the student's labels 0 to 3 are its 2, 4, 7 and 9.
MORE = Charset("一二十丁厂七口日永我的")
FEW = Charset("".join(MORE[label] for label in (2, 4, 7, 9)))
DRAW = {"draw": 80, "size": 32, "epochs": 2, "pages": 0.0}


def pictures(count: int = 40) -> Batch:
    """Pictures of FEW by writers from whom nobody learns."""
    (batch,) = SyntheticBatches(
        FEW.characters, SequentialBatches(count, count), writers=VALIDATION_WRITERS, seed=8, size=32
    )
    return batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of characters; the runs "teacher", of MORE, and "uncut", which learnt FEW from it. Do not change those."""
    folder = tmp_path_factory.mktemp("distillation")
    for name, charset in {"more": MORE, "few": FEW}.items():
        charset.write(folder / f"{name}.txt")
    run(folder, "teacher", charset=str(folder / "more.txt"), draw=220, epochs=6, augmentation=False, dropout=0.0)
    run(folder, "uncut", teacher=str(folder / "teacher/checkpoints/best.pt"))
    return folder


def run(folder: Path, name: str, **other: Any) -> Path:
    """Train `folder / name`, on FEW where nothing else is said."""
    given = GIVEN | DRAW | {"charset": str(folder / "few.txt")} | other
    train(TrainConfig(**given), None, folder / name, Execution("cpu"), Watcher(), resume=False)
    return folder / name


def planned(folder: Path, **other: Any) -> RunSetup:
    given = GIVEN | DRAW | {"charset": str(folder / "few.txt")} | other
    return set_up_run(TrainConfig(**given), None, folder / "none", Execution("cpu"), Processes(), Watcher())[0]


def best(folder: Path, name: str) -> Path:
    return folder / name / "checkpoints/best.pt"


def answers(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(images).double().numpy()
        return found


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shares: np.ndarray = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return shares


@pytest.mark.parametrize("parts", [1, 3])
def test_the_loss_of_a_step_is_the_formula(folder: Path, parts: int) -> None:
    teacher, batch = best(folder, "teacher"), pictures(20)
    setup = planned(folder, teacher=str(teacher), augmentation=False, dropout=0.0, accumulate=parts)
    state = setup.state(None, Watcher())
    state.model.train()
    theirs = answers(load_recognizer(teacher), batch.images)[:, [MORE.label(char) for char in FEW.characters]]
    assert theirs.std(0).min() > 0.5, "a teacher that always answers the same shows nothing"
    own = np.concatenate([answers(state.model, some) for some in batch.images.tensor_split(parts)])

    named = np.eye(len(FEW))[batch.labels.numpy()] * 0.9 + 0.1 / len(FEW)
    p, q = log_softmax(theirs / 2), log_softmax(own / 2)
    expected = -0.1 * (named * log_softmax(own)).sum() + 0.9 * 2**2 * (np.exp(p) * (p - q)).sum()
    stepper = Stepper(setup.config, state, Processes(), setup.teacher, compiled=False)
    stepper.take(batch, 1e-3)
    assert float(state.tally.loss) == pytest.approx(expected, rel=1e-4)


def test_a_teacher_is_shown_what_is_on_a_page_without_the_page(folder: Path) -> None:
    teacher = best(folder, "teacher")
    setup = planned(folder, teacher=str(teacher), augmentation=False, dropout=0.0, pages=0.5)
    feed = setup.splits["train"].feed(SequentialBatches(20, 20), Execution("cpu"))
    (batch,) = feed
    assert batch.clean is not None
    paged = are_pages(batch.index, setup.config.seed, 0.5)
    assert torch.equal(batch.images[~paged], batch.clean[~paged])
    assert (batch.images[paged] != batch.clean[paged]).flatten(1).any(1).all()
    state = setup.state(None, Watcher())
    state.model.train()
    theirs = answers(load_recognizer(teacher), batch.clean)[:, [MORE.label(char) for char in FEW.characters]]
    own = answers(state.model, batch.images)
    named = np.eye(len(FEW))[batch.labels.numpy()] * 0.9 + 0.1 / len(FEW)
    p, q = log_softmax(theirs / 2), log_softmax(own / 2)
    expected = -0.3 * (named * log_softmax(own)).sum() + 0.7 * 2**2 * (np.exp(p) * (p - q)).sum()
    Stepper(setup.config, state, Processes(), setup.teacher, compiled=False).take(batch, 1e-3)
    assert float(state.tally.loss) == pytest.approx(expected, rel=1e-4)
    assert float(state.tally.correct) == (own.argmax(1) == batch.labels.numpy()).sum()


def test_it_learns_the_answers_more_than_the_labels(folder: Path, tmp_path: Path) -> None:
    # One that takes two characters for each other, and the other two.
    content, teacher = read_checkpoint(best(folder, "teacher")), tmp_path / "teacher.pt"
    swapped = [0, 1, 4, 3, 2, 5, 6, 9, 8, 7, 10]
    for key in ("backbone.head.2.weight", "backbone.head.2.bias"):
        content["ema"][key] = content["ema"][key][swapped]
    torch.save(content, teacher)
    asked, was = Teacher(teacher, FEW, 32, "cpu"), teacher.read_bytes()
    images = pictures(80).images
    p = log_softmax(answers(asked, images) / 2)

    def far(name: str) -> float:
        q = log_softmax(answers(load_recognizer(checkpoints(folder / name)[0]), images) / 2)
        return float((np.exp(p) * (p - q)).sum(1).mean())

    settings: dict[str, Any] = {"draw": 120, "epochs": 9, "augmentation": False, "dropout": 0.0}
    run(folder, "taught", teacher=str(teacher), **settings)
    run(folder, "untaught", **settings)
    assert far("taught") < 0.5 * far("untaught")
    assert teacher.read_bytes() == was
    taught, untaught = (end_of(folder / name)[0] for name in ("taught", "untaught"))
    assert taught["teacher"] == weights_digest(load_recognizer(teacher).state_dict()) and untaught["teacher"] is None
    assert taught["model"].keys() == untaught["model"].keys()


def test_a_teacher_answers_as_where_it_judges_and_takes_no_gradients(folder: Path) -> None:
    path, images = best(folder, "teacher"), pictures().images
    teacher = planned(folder, teacher=str(path)).teacher
    assert teacher is not None and not teacher.training
    found = teacher(images)
    expected = answers(load_recognizer(path), images)[:, [2, 4, 7, 9]]
    assert found.dtype == torch.float32 and not found.requires_grad
    assert np.allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("step", [2, 5])
def test_a_stopped_run_ends_like_one_that_was_not(folder: Path, tmp_path: Path, step: int) -> None:
    given = GIVEN | DRAW | {"charset": str(folder / "few.txt"), "teacher": str(best(folder, "teacher"))}
    watcher = Watcher(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match=f"at step {step} of 8"):
        train(TrainConfig(**given), None, tmp_path / "run", Execution("cpu"), watcher, resume=False)
    train(TrainConfig(), None, tmp_path / "run", Execution("cpu"), Watcher(), resume=True)
    require_equal(end_of(tmp_path / "run"), end_of(folder / "uncut"))


def files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_another_teacher_is_refused_where_a_run_goes_on(folder: Path, tmp_path: Path) -> None:
    teacher = Path(shutil.copy(best(folder, "teacher"), tmp_path / "teacher.pt"))
    going = run(folder, "going", teacher=str(teacher), epochs=1)
    digest, before = weights_digest(load_recognizer(teacher).state_dict()), files(going)

    def refused(kind: type[HcrError], given: dict[str, Any]) -> str:
        with pytest.raises(kind) as found:
            train(TrainConfig(**given), None, going, Execution("cpu"), Watcher(), resume=True)
        assert files(going) == before
        return str(found.value)

    # Other files with the same weights are no other teacher.
    content = read_checkpoint(teacher)
    torch.save(content | {"step": 0}, teacher)
    train(TrainConfig(), None, going, Execution("cpu"), Watcher(), resume=True)
    before = files(going)
    content["ema"]["backbone.head.2.bias"][3] += 1e-3
    torch.save(content, teacher)
    changed = weights_digest(content["ema"])
    assert refused(DataError, {}) == (
        f"--teacher {teacher}: weights {changed}, but the run was started with {digest}; put those back, or start "
        "another --run"
    )
    teacher.unlink()
    assert refused(DataError, {}).startswith(f"{teacher}: no such weights")
    other = str(best(folder, "teacher"))
    assert f"--teacher {other}: the run was started with {teacher}; leave" in refused(UsageError, {"teacher": other})
    going, before = folder / "teacher", files(folder / "teacher")
    assert f"--teacher {other}: the run was started with none; leave" in refused(UsageError, {"teacher": other})
    assert refused(DataError, {"teacher": "x.pt"}).startswith("x.pt: no such weights")


def test_a_checkpoint_from_before_there_were_teachers_goes_on(folder: Path) -> None:
    old = run(folder, "old", epochs=1)
    (path,) = checkpoints(old)
    content = read_checkpoint(path)
    del content["teacher"], content["config"]["teacher"]
    content["config"]["epochs"] = 2
    torch.save(content, path)
    train(TrainConfig(), None, old, Execution("cpu"), Watcher(), resume=True)
    assert end_of(old)[0]["step"] == 8


def test_teachers_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    pupil, more = str(best(folder, "uncut")), str(folder / "more.txt")
    for given, message in (
        ({"teacher": pupil, "charset": more}, "lacks 7 of the 11 characters, first '.{7}'; choose one that knows them"),
        ({"teacher": pupil, "size": 48}, "reads pictures of 32 px, expected 48; choose another"),
    ):
        with pytest.raises(UsageError, match=rf"--teacher {pupil}: {message}"):
            run(tmp_path, "run", **{"charset": str(folder / "few.txt")} | given)
    with pytest.raises(DataError, match=r"gone\.pt: no such weights"):
        run(tmp_path, "run", charset=more, teacher=str(tmp_path / "gone.pt"))
    assert not (tmp_path / "run").exists()


def test_a_pack_is_learnt_from_released_weights_of_another_network(small_pack: Path, tmp_path: Path) -> None:
    file, known = tmp_path / "large.safetensors", Charset.level1()
    torch.manual_seed(3)
    model = Recognizer("efficientnet_v2_s", known, 32)
    content = {"arch": model.arch, "size": 32, "characters": known.characters, "preprocessing": PREPROCESSING}
    content["ema"] = model.state_dict()
    write_released(file, content, "none", {"pack": {}}, {})
    watcher = Watcher()
    given = GIVEN | {"epochs": 1, "teacher": str(file)}
    train(TrainConfig(**given), small_pack, tmp_path / "run", Execution("cpu"), watcher, resume=False)
    assert watcher.rows[0]["skipped_steps"] == 0 and np.isfinite(watcher.rows[0]["train_loss"])


def hcr_train(*arguments: object) -> Result:
    flags = ("--size", 32, "--arch", "compact", "--batch-size", 20, "--precision", "fp32", "--device", "cpu")
    return CliRunner().invoke(main, [str(argument) for argument in (*arguments, *flags)])


def test_a_recipe_or_a_flag_names_the_teacher(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "teacher", "artifacts/teacher")
    shutil.copytree(folder / "teacher", "artifacts/other")
    Path("mine.toml").write_text(
        f'draw = 80\ncharset = "{folder / "few.txt"}"\nepochs = 1\nteacher = "teacher"\nseed = 5\n', "utf-8"
    )
    command = ("--recipe", "mine.toml", "--run", "first")
    shown = hcr_train(*command, "--dry-run")
    assert 'teacher = "artifacts/teacher/checkpoints/best.pt" # recipe' in shown.stdout
    assert not Path("artifacts/first").exists()
    done = hcr_train(*command)
    assert done.exit_code == 0, done.output
    config = json.loads(Path("artifacts/first/run.json").read_text("utf-8"))["config"]
    assert config["teacher"] == "artifacts/teacher/checkpoints/best.pt"
    again = hcr_train(*command, "--resume")
    assert again.exit_code == 0 and "resuming artifacts/first at step 4" in again.stderr
    refused = hcr_train(*command, "--resume", "--teacher", "other")
    assert refused.exit_code == 2
    assert (
        "error: --teacher artifacts/other/checkpoints/best.pt: the run was started with artifacts/t" in refused.stderr
    )
    # A flag counts for more than the recipe, and a file is what it is.
    flag = hcr_train(*command[:2], "--run", "second", "--teacher", "artifacts/other/checkpoints/best.pt")
    assert flag.exit_code == 0, flag.output
    require_equal(*(end_of(Path("artifacts", name))[0]["model"] for name in ("first", "second")))
    missing = hcr_train("--draw", 80, "--run", "x", "--teacher", "nobody")
    assert missing.exit_code == 3 and "error: nobody: no such weights" in missing.stderr
