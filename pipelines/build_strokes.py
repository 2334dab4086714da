"""Build hcr/synth/strokes.bin from the npm package hanzi-writer-data 2.0.1.

    python pipelines/build_strokes.py [hanzi-writer-data-2.0.1.tgz] [--out hcr/synth/strokes.bin]

Without an argument `npm pack` fetches the package into a temporary folder. Half a minute on one core. The same package
gives the same bytes. The file's format stands in hcr/synth/strokes.py.
"""

from __future__ import annotations

import argparse
import json
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

import numpy as np

from hcr.errors import DataError, HcrError
from hcr.files import atomic_write
from hcr.synth.strokes import GRID, HEADER, MAGIC, VERSION, StrokeTable

PACKAGE = "hanzi-writer-data@2.0.1"
BOX = 1024
TOP = 900  # y of the box's upper side; y points up in the package
TOLERANCE = 6.0  # of BOX: how far a point that is left out may lie from the line

NOTICE = (
    "Centre lines of the strokes (medians) of Make Me a Hanzi, from hanzi-writer-data 2.0.1, derived from fonts "
    "Copyright (C) 1999 Arphic Technology Co., Ltd., under the Arphic Public License (ARPHICPL.TXT). Changed for hcr "
    "in November 2026: the medians only, simplified, rounded to a grid of 256 and laid out anew."
)

Strokes = list[np.ndarray]  # of one character, each int[K, 2] in steps of the grid


def main() -> int:
    """Build the table and say what is in it."""
    parser = argparse.ArgumentParser(description="Build the stroke table from the npm package hanzi-writer-data.")
    parser.add_argument("package", nargs="?", type=Path, help=f"the package as .tgz (default: npm pack {PACKAGE})")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "hcr" / "pen" / "strokes.bin")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            characters = read_package(arguments.package or fetch(Path(folder)))
        with atomic_write(arguments.out) as file:
            file.write(encode(characters))
        table = StrokeTable(arguments.out)
    except HcrError as error:
        print(f"build_strokes: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{arguments.out}: {len(table.characters)} characters, {arguments.out.stat().st_size} bytes")
    return 0


def fetch(folder: Path) -> Path:
    """Download the package into `folder` with npm."""
    try:
        done = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise HcrError(f"npm is not installed: give {PACKAGE} as a .tgz file instead") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise HcrError(f"npm pack {PACKAGE} failed ({lines[0]}): give the package as a .tgz file instead")
    return folder / done.stdout.split()[-1]


def read_package(path: Path) -> dict[str, Strokes]:
    """Read the medians of each single character (the package also has files of all of them)."""
    characters = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name)
                stream = archive.extractfile(member) if name.suffix == ".json" and len(name.stem) == 1 else None
                if stream is not None:
                    medians = json.load(stream)["medians"]
                    characters[name.stem] = [quantise(np.array(median, float)) for median in medians]
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not the package {PACKAGE} ({error})") from None
    if not characters:
        raise DataError(f"{path}: no file of a single character, expected those of {PACKAGE}")
    return characters


def quantise(median: np.ndarray) -> np.ndarray:
    """Simplify a centre line of the package and put it on the grid, y down; at least two points are left."""
    line = simplify(median, TOLERANCE) * [1, -1] + [0, TOP]
    grid = np.clip(np.round(line * (GRID / BOX)), 0, GRID - 1).astype(int)
    moved = np.any(np.diff(grid, axis=0) != 0, axis=1)
    grid = grid[np.concatenate([[True], moved])]
    return grid if len(grid) > 1 else np.repeat(grid, 2, axis=0)


def simplify(line: np.ndarray, tolerance: float) -> np.ndarray:
    """Leave out points that lie within `tolerance` of the line without them (Ramer, Douglas and Peucker)."""
    if len(line) < 3:
        return line
    start, chord = line[0], line[-1] - line[0]
    inner = line[1:-1] - start
    along = np.clip(inner @ chord / max(float(chord @ chord), 1e-9), 0, 1)
    distance = np.linalg.norm(inner - along[:, None] * chord, axis=1)
    if distance.max() <= tolerance:
        return line[[0, -1]]
    cut = int(distance.argmax()) + 1
    return np.concatenate([simplify(line[: cut + 1], tolerance)[:-1], simplify(line[cut:], tolerance)])


def encode(characters: dict[str, Strokes]) -> bytes:
    """Lay the characters out as hcr/synth/strokes.py says."""
    order = sorted(characters)
    strokes = [stroke for char in order for stroke in characters[char]]
    points = np.concatenate(strokes)
    steps = np.diff(points, axis=0, prepend=[[0, 0]]).astype(np.uint8)
    payload = b"".join(
        [
            np.array([ord(char) for char in order], "<u4").tobytes(),
            bytes(len(characters[char]) for char in order),
            bytes(len(stroke) for stroke in strokes),
            steps[:, 0].tobytes(),
            steps[:, 1].tobytes(),
        ]
    )
    notice = NOTICE.encode()
    counts = (len(order), len(strokes), len(points))
    header = HEADER.pack(MAGIC, VERSION, *counts, zlib.crc32(payload), len(notice)) + notice
    return header + lzma.compress(payload, lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    sys.exit(main())
