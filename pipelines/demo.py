"""The whole way on a small drawn corpus: draw, pack, train, evaluate, recognise. `make demo` runs it.

Everything goes through the commands that a person would type; each is shown before it runs. What an earlier run
finished is reused by the commands themselves.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from hcr.corpus.gnt import read_gnt
from hcr.corpus.sample import Sample
from hcr.files import read_json

CHARACTERS, WRITERS, SEED = 240, 40, 1
RAW = Path("data/demo/raw")
PACKED = Path("data/demo/packed")
PICTURES = Path("data/demo/pictures")
RUN = Path("artifacts/demo")
SHOWN = 8


def run(*command: str) -> float:
    """Show and run a command; return the seconds it took. If it fails, end with its exit code."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    began = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(code)
    return time.monotonic() - began


def held_out_pictures() -> list[Path]:
    """Save a character of each of a few test writers as PNG, named by what it is."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    saved = []
    for place, path in enumerate(sorted((RAW / "test").glob("*.gnt"))[:SHOWN]):
        samples = [s for s in read_gnt(path.read_bytes(), writer=path.stem, name=path.name) if isinstance(s, Sample)]
        sample = samples[(2 * place + 1) * len(samples) // (2 * SHOWN)]
        picture = PICTURES / f"writer {path.stem} wrote {sample.char}.png"
        Image.fromarray(sample.picture).save(picture)
        saved.append(picture)
    return saved


def main() -> None:
    """Do everything, and say at the end what was done and how good it is."""
    began = time.monotonic()
    # The recipe is for minutes on a CPU. A GPU has time for the large network, larger pictures and all of its dropout.
    arch, size, own = "compact_small", "48", []
    if torch.cuda.is_available():
        arch, size = "efficientnet_v2_s", "64"
        own = ["--arch", arch, "--dropout", "1", "--size", size]
    else:
        print("No CUDA here: a small network is trained; EfficientNetV2-S would get nowhere in minutes on a CPU.")
    packed = str(PACKED / f"demo-{size}")
    spent = {
        "draw": run("hcr-data", "draw", "--charset", str(CHARACTERS), "--writers", str(WRITERS), "--seed", str(SEED),
                    "--out", str(RAW)),
        "pack": run("hcr-data", "pack", str(RAW), "--size", size, "--out", packed),
        "train": run("hcr-train", "--data", packed, "--run", RUN.name, "--recipe", "pipelines/demo.toml", *own,
                     "--resume"),
        "evaluate": run("hcr-eval", "--run", RUN.name, "--split", "test", "--per-class", str(RUN / "report.csv")),
        "recognise": run("hcr-predict", *map(str, held_out_pictures()), "--weights", RUN.name, "--top", "3"),
    }  # fmt: skip
    summary = read_json(RUN / "eval/test/summary.json")
    pack = f"{CHARACTERS} characters of GB2312 level 1, {WRITERS} drawn writers"
    times = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in spent.items())
    print(f"""
done in {time.monotonic() - began:.0f} s ({times})
  corpus        {pack}: {RAW}
  network       {arch}: {RUN}
  evaluated on  {summary["n"]:,} pictures by drawn writers that training never saw
  top-1         {summary["top1"]:.2%}
  top-5         {summary["top5"]:.2%}
  per class     {RUN / "report.csv"}
  next          . .venv/bin/activate && hcr-predict YOUR-PICTURE.png --weights {RUN.name}
                make dataset, for all 3,755 characters; then hcr-train --resume""")


if __name__ == "__main__":
    main()
