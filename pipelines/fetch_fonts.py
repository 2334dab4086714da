"""Fetch fonts of handwriting that may be trained on, one file each, into data/fonts.

    python pipelines/fetch_fonts.py [--unseen] [--out data/fonts]

Ten hands, from school script and felt pen to grass script, under the SIL Open Font License. They are not part of this
project: npm fetches the packages, which cut a font into a hundred files for browsers; those with characters of GB2312
are joined again into NAME.ttf, and the licence is laid beside it as NAME-OFL.txt. The fonts from Japan and Taiwan have
two thirds of the characters of level 1. Needs npm and fontTools (`pip install 'hcr[fonts]'`); takes a minute and a
half. The same versions give the same bytes, so that a training that used them can go on.

`--unseen` fetches four others, from Japan, of which no recipe learns: benchmarks/unseen.py judges by them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from hcr.charset import Charset
from hcr.errors import DataError, HcrError
from hcr.files import atomic_write
from hcr.synth.fonts.glyphs import font_digest


class Source(NamedTuple):
    """A package of npm with a font: which of its files are parts of it, and which has the licence."""

    package: str
    version: str
    parts: str = "files/*-400-normal.woff"
    licence: str = "LICENSE"


FONTS = {
    "ma-shan-zheng": Source("@fontsource/ma-shan-zheng", "5.3.1"),
    "long-cang": Source("@fontsource/long-cang", "5.3.0"),
    "zhi-mang-xing": Source("@fontsource/zhi-mang-xing", "5.3.0"),
    "liu-jian-mao-cao": Source("@fontsource/liu-jian-mao-cao", "5.3.0"),
    "zcool-kuaile": Source("@fontsource/zcool-kuaile", "5.3.0"),
    "lxgw-wenkai": Source("lxgw-wenkai-webfont", "1.7.0", "files/lxgwwenkai-regular-*.woff2", "OFL.txt"),
    "iansui": Source("@fontsource/iansui", "5.3.0"),
    "yomogi": Source("@fontsource/yomogi", "5.3.0"),
    "zen-kurenaido": Source("@fontsource/zen-kurenaido", "5.3.0"),
    "yuji-mai": Source("@fontsource/yuji-mai", "5.3.0"),
}
UNSEEN = {
    name: Source(f"@fontsource/{name}", "5.3.0") for name in ("klee-one", "yusei-magic", "hachi-maru-pop", "yuji-boku")
}
_FEWEST = 2_000  # characters of level 1


def main(arguments: list[str] | None = None) -> int:
    """Fetch what is missing and say what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--unseen", action="store_true", help="those to judge by")
    parser.add_argument("--out", type=Path, help="default: data/fonts, or data/fonts/unseen")
    given = parser.parse_args(arguments)
    out: Path = given.out or Path("data/fonts/unseen" if given.unseen else "data/fonts")
    try:
        for name, source in (UNSEEN if given.unseen else FONTS).items():
            font = out / f"{name}.ttf"
            if not font.exists():
                with tempfile.TemporaryDirectory() as folder:
                    join(fetch(source, Path(folder)), source, name, out)
            print(f"{font}: {font.stat().st_size:,} bytes, digest {font_digest(font)}")
    except HcrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def fetch(source: Source, folder: Path) -> Path:
    """Let npm fetch a package; give where it lies unpacked.

    Raises: HcrError where npm is missing or fails; DataError for another package, or another licence.
    """
    if not (npm := shutil.which("npm")):
        raise HcrError("npm: not found; install Node.js, which brings it")
    package, version = source.package, source.version
    done = subprocess.run(
        [npm, "pack", "--silent", f"{package}@{version}"], cwd=folder, capture_output=True, text=True, check=False
    )
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing said"]
        raise HcrError(f"npm pack {package}@{version}: {said[-1]}; is the registry within reach?")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / "package"
    about = json.loads((unpacked / "package.json").read_text("utf-8"))
    if (about["name"], about["version"]) != (package, version):
        raise DataError(f"{archives[0].name}: holds {about['name']}@{about['version']}, expected {package}@{version}")
    if "SIL Open Font License" not in (unpacked / source.licence).read_text("utf-8"):
        raise DataError(
            f"{archives[0].name}: its {source.licence} is not the SIL Open Font License; use another version"
        )
    return unpacked


def join(package: Path, source: Source, name: str, out: Path) -> None:
    """Join an unpacked package's files into out/NAME.ttf, and lay the licence beside it.

    Raises: DataError where most characters of GB2312 level 1 are missing.
    """
    from fontTools import merge
    from fontTools.misc.timeTools import epoch_diff
    from fontTools.ttLib import TTFont

    wanted = set(map(ord, Charset.gb2312().characters))
    parts, covered = [], set[int]()
    # The largest first: it has nearly all, the others what is rare.
    for path in sorted(package.glob(source.parts), key=lambda path: (-path.stat().st_size, path.name)):
        with TTFont(path, lazy=True) as font:
            new = set(font.getBestCmap()) & wanted - covered
        if new:
            parts.append(path)
            covered |= new
    found = sum(ord(char) in covered for char in Charset.level1().characters)
    if found < _FEWEST:
        raise DataError(f"{name}: has {found:,} characters of GB2312 level 1, expected {_FEWEST:,} at least")
    # Layout tables say how letters join, which single characters do not.
    options = merge.Options(drop_tables=["GSUB", "GPOS", "GDEF", "DSIG", "vhea", "vmtx", "VORG", "BASE"])
    joined = merge.Merger(options).merge([str(path) for path in parts])
    # The same bytes whenever it is done.
    joined.recalcTimestamp = False
    joined["head"].created = joined["head"].modified = -epoch_diff
    with atomic_write(out / f"{name}.ttf") as file:
        joined.save(file)
    shutil.copyfile(package / source.licence, out / f"{name}-OFL.txt")


if __name__ == "__main__":
    sys.exit(main())
