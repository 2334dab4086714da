"""How well and how fast a model reads real handwriting: by default the released one.

    python benchmarks/real.py FOLDER [--weights FILE] [--among level1] [--pictures N] [--worst 24] [--json figures.json]

FOLDER holds real handwriting as .gnt files. Every class of the model is a possible answer to every picture; pictures of
characters that the model does not know are left out, and counted. `--among` leaves the model only the characters of a
charset as answers: what the others cost. `--json` writes the figures that
`pipelines/release.py --figures` puts into the released file. One thread; times are a core's own, so that other programs
hardly count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from common import processor, table
from handwriting import read_samples, some

from hcr.charset import Charset
from hcr.evaluation import Predictions, confusions, summarise
from hcr.evaluation.calibration import calibrate
from hcr.files import write_json
from hcr.inference import Predictor
from hcr.layout import RELEASED
from hcr.models import Recognizer, load_recognizer
from hcr.models.fine_tuning import transfer
from hcr.models.released import weights_digest
from hcr.preprocess.fit import fit_square, to_paper

TAKEN_FOR = 4
# So many characters stand in the figures.
WORST = 10


@dataclass(frozen=True)
class Real:
    """Pictures uint8[H, W] as they were scanned, 255 = paper, and their labels int64[N] in a model's charset.

    left_out: pictures of characters that the model does not know.
    """

    pictures: list[np.ndarray]
    labels: np.ndarray
    left_out: int


def read_real(folder: Path, model: Recognizer, count: int | None = None) -> Real:
    """Read every record below a folder, or `count` of them drawn with a fixed seed."""
    samples = read_samples(folder)
    known = [sample for sample in samples if sample.char in model.charset]
    if not known:
        sys.exit(f"error: {folder}: none of its {len(samples):,} pictures is of a character that the model knows")
    left_out = len(samples) - len(known)
    known = some(known, count)
    labels = np.array([model.charset.label(sample.char) for sample in known])
    return Real([sample.picture for sample in known], labels, left_out)


def evaluate_squares(predictor: Predictor, squares: Sequence[np.ndarray], labels: np.ndarray) -> Predictions:
    """Let a model name squares uint8[S, S], whose true labels are int64[N]."""
    answers = predictor.predict(squares)
    label = predictor.recognizer.charset.label
    return Predictions(
        np.arange(len(labels)),
        labels,
        np.array([[label(char) for char, _ in answer] for answer in answers]),
        np.array([[probability for _, probability in answer] for answer in answers], np.float32),
    )


def milliseconds(work: Callable[[], object], pictures: int, repeats: int) -> float:
    """Return the median over calls of a core's milliseconds a picture, after a few that do not count."""
    spent = []
    for call in range(repeats + 3):
        began = time.thread_time()
        work()
        if call >= 3:
            spent.append(1000 * (time.thread_time() - began) / pictures)
    return statistics.median(spent)


def load(weights: Path, among: str | None) -> Recognizer:
    """Load a model, with the characters of a charset as its only answers where one is named."""
    model = load_recognizer(weights)
    if among is None:
        return model
    fewer = Recognizer(model.arch, Charset.named(among), model.size)
    transfer(fewer, weights)
    return fewer.eval()


def measure(
    folder: Path, model: Recognizer, count: int | None, repeats: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a model's figures, and those of each character, the worst first."""
    predictor = Predictor(model)
    real = read_real(folder, model, count)
    squares = [fit_square(picture, model.size) for picture in real.pictures]
    predictions = evaluate_squares(predictor, squares, real.labels)
    summary = summarise(predictions, len(model.charset))
    pairs = confusions(predictions, len(model.charset))
    seen = np.flatnonzero(summary.count)
    order = seen[np.argsort(summary.recall[seen], kind="stable")]
    by_character = [
        {
            "char": model.charset[label],
            "n": int(summary.count[label]),
            "top1": round(float(summary.recall[label]), 4),
            "top5": round(float(summary.top5_recall[label]), 4),
            "taken_for": dict([(model.charset[p.predicted], p.count) for p in pairs if p.target == label][:TAKEN_FOR]),
        }
        for label in order.tolist()
    ]
    first = Image.fromarray(real.pictures[0])
    batch = [squares[place % len(squares)] for place in range(64)]
    figures = {
        "weights": weights_digest(model.state_dict()),
        "n": summary.n,
        "characters": len(seen),
        "classes": len(model.charset),
        "left_out": real.left_out,
        "top1": round(summary.top1, 6),
        "top5": round(summary.top5, 6),
        "top1_interval": [round(bound, 6) for bound in summary.top1_interval],
        "top5_interval": [round(bound, 6) for bound in summary.top5_interval],
        "macro_recall": round(summary.macro_recall, 6),
        "mean_score": round(float(predictions.score[:, 0].mean()), 6),
        "calibration_error": round(calibrate(predictions).ece, 6),
        "ms_1": round(milliseconds(lambda: predictor.predict(batch[:1]), 1, repeats), 3),
        "ms_64": round(milliseconds(lambda: predictor.predict(batch), 64, max(1, repeats // 20)), 3),
        "ms_fitting": round(milliseconds(lambda: fit_square(to_paper(first), model.size), 1, repeats), 3),
        # Processors of one name differ by half in what their vectors do.
        "machine": f"{processor()} with {torch.backends.cpu.get_cpu_capability()}",
        "worst": by_character[:WORST],
    }
    return figures, by_character


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, default=RELEASED["level1"], help="a checkpoint or released file")
    parser.add_argument("--among", metavar="CHARSET", help="the only answers: level1, gb2312, a file of characters")
    parser.add_argument("--pictures", type=int, help="so many, drawn with a fixed seed; default: all")
    parser.add_argument("--worst", type=int, default=24, help="characters to show")
    parser.add_argument("--repeats", type=int, default=200, help="calls that are timed")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures, by_character = measure(given.folder, load(given.weights, given.among), given.pictures, given.repeats)
    low, high = figures["top1_interval"]
    shown = [
        ["top-1", f"{figures['top1']:.2%} ({low:.2%} to {high:.2%})"],
        ["top-5", f"{figures['top5']:.2%}"],
        ["mean over characters", f"{figures['macro_recall']:.2%}"],
        [
            "pictures",
            f"{figures['n']:,} of {figures['characters']:,} characters; {figures['left_out']:,} of others left out",
        ],
        ["possible answers", f"{figures['classes']:,}"],
        ["score of the answer, mean", f"{figures['mean_score']:.2%}"],
        ["calibration error", f"{figures['calibration_error']:.2%}"],
        ["file", f"{given.weights.stat().st_size / 1e6:.2f} MB"],
        ["ms a picture, one at a time", f"{figures['ms_1']:.2f}, and {figures['ms_fitting']:.2f} to fit it"],
        ["ms a picture, 64 at a time", f"{figures['ms_64']:.2f}"],
    ]
    print(table([given.weights.name, f"one core of {figures['machine']}"], shown))
    print()
    rows = []
    for row in by_character[: given.worst]:
        taken = [f"{char} {count}" for char, count in row["taken_for"].items()]
        rows.append([row["char"], str(row["n"]), f"{row['top1']:.1%}", f"{row['top5']:.1%}", ", ".join(taken)])
    print(table(["character", "n", "top-1", "top-5", "taken for"], rows))
    if given.json:
        write_json(given.json, figures)


if __name__ == "__main__":
    main()
