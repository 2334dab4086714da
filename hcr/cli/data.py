"""hcr-data: draw a corpus, pack one, look into a pack, write it out again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hcr.charset import KNOWN, Charset
from hcr.cli.common import Command, charset_option, meter, note, version_option
from hcr.cli.options import setting_options
from hcr.pack.config import PackConfig
from hcr.text import counted

if TYPE_CHECKING:
    from hcr.pack.inspect import SplitInfo


class _Group(click.Group):
    command_class = Command


@click.group(cls=_Group)
@version_option
def main() -> None:
    """Turn handwriting into packs: LMDB files of square grey pictures with integer labels."""


@main.command()
@charset_option("Characters to draw", words="N, ", default="level1", older=("--characters",))
@click.option(
    "--writers", type=click.IntRange(1), default=40, show_default=True,
    help="Number of writers, one GNT file each; one in five goes to test.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed; changes the writers.")
@click.option("--out", type=click.Path(path_type=Path), default="data/raw/drawn", show_default=True, help="The folder.")
@click.option(
    "--font", "fonts", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
    help="TTF, OTF or WOFF2. One writer in four writes the forms of one of the fonts; the others take more or less of "
    "their proportions. Repeatable. Cached in $HCR_CACHE, or else ~/.cache/hcr (up to 1 GiB).",
)  # fmt: skip
def draw(charset: str, writers: int, seed: int, out: Path, fonts: tuple[Path, ...]) -> None:
    """Draw synthetic handwriting from stroke data, and from fonts, as GNT files.

    N characters are taken evenly from all over level 1. Files that an earlier run has finished are kept.

    \b
    hcr-data draw --charset 200 --writers 20 --out data/raw/small
    hcr-data draw --font data/fonts/long-cang.ttf --font data/fonts/zhi-mang-xing.ttf
    """
    from hcr.corpus.synthetic import draw_corpus, spread

    characters = spread(Charset.level1(), int(charset)) if charset.isdecimal() else Charset.named(charset)
    with meter("draw", " pictures") as progress:
        drawn = draw_corpus(out, characters, writers=writers, seed=seed, fonts=fonts, progress=progress)
    click.echo(
        f"{out}: {counted(drawn.characters, 'character')} by {drawn.train_writers} training and "
        f"{counted(drawn.test_writers, 'test writer')}, "
        + (f"{counted(drawn.drawn_files, 'file')} drawn now" if drawn.drawn_files else "all drawn before")
    )


@main.command()
@click.argument("source", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--size", "sizes", type=int, multiple=True, default=[PackConfig.size], show_default=True,
    help="Pixels a side; several make several packs in one reading.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), help="The pack, of one size.  [default: data/packed/<corpus>-<size>]"
)
@charset_option("Characters to keep", words="all, ", default="level1")
@setting_options(PackConfig, skip=("size", "characters", "fixed"))
@click.option(
    "--workers", type=click.IntRange(1), help="Processes that read; 1 reads in this one.  [default: one a core]"
)
def pack(
    source: tuple[Path, ...],
    sizes: tuple[int, ...],
    out: Path | None,
    charset: str,
    workers: int | None,
    **settings: Any,
) -> None:
    """Pack GNT files, class folders of pictures, zips of either, or HDF5 files.

    SOURCE is a file or folder, or several. Without it, CASIA is packed where it lies in data/raw, else the drawn
    corpus. The pack keeps those characters of --charset that occur; a FILE is kept in full. After a stop, a kill or a
    full disk, run the same command again to resume.

    \b
    hcr-data pack --size 64
    hcr-data pack data/raw/HWDB1.1 data/raw/competition-gnt.zip --size 32 --size 96
    """
    from hcr.corpus.find import default_sources, find_corpus
    from hcr.errors import UsageError
    from hcr.layout import PACKED, RAW
    from hcr.pack.packer import pack_sizes

    sizes = tuple(dict.fromkeys(sizes))
    if out and len(sizes) > 1:
        raise UsageError(
            f"--out names one pack, and there are {counted(len(sizes), 'size')}; leave it out, or give one --size"
        )
    allowed = None if charset == "all" else Charset.named(charset)
    is_named = charset == "all" or charset in KNOWN
    configs = {size: PackConfig(size, allowed, not is_named, **settings) for size in sizes}
    sources = list(source) or default_sources(RAW)
    corpus = find_corpus(sources, allowed=allowed, numbering=allowed or Charset.level1())
    note(f"{', '.join(map(str, sources))}: {corpus.layout}")
    packs = {out or PACKED / f"{corpus.name}-{size}": config for size, config in configs.items()}
    with meter("pack", "B") as progress:
        summaries = pack_sizes(corpus, packs, workers=workers, progress=progress)
    for summary, size in zip(summaries, sizes, strict=True):
        if summary.unusable:
            note(f"starting over: the unfinished pack cannot be used ({summary.unusable})")
        if summary.resumed:
            note(f"{summary.path}: packed by an earlier run: {counted(summary.resumed, 'sample')}")
        counts = " + ".join(f"{count:,} {split}" for split, count in summary.counts.items())
        already = "already packed from these sources: " if summary.already_packed else ""
        click.echo(
            f"{summary.path}: {already}{counted(len(summary.charset), 'character')}, {counts} samples of {size} px"
        )
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in summary.left_out.items())
    click.echo(f"left out: {left_out or 'nothing'}")
    if made := [summary for summary in summaries if not summary.already_packed]:
        for message in made[0].damaged:
            note(f"damaged: {message}")
        packed = max(sum(summary.counts.values()) - summary.resumed for summary in made)
        written = sum(summary.bytes for summary in made)
        click.echo(f"{packed / made[0].seconds:,.0f} samples a second, {written:,} bytes")


@main.command()
@click.argument("pack", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Show the full metadata of each split as JSON.")
def info(pack: Path, as_json: bool) -> None:
    """Show what a pack holds."""
    import json

    from hcr.pack.inspect import info as info_of

    splits = info_of(pack)
    if as_json:
        click.echo(json.dumps(splits, ensure_ascii=False, indent=1))
        return
    for name, split in splits.items():
        click.echo(_line(pack, name, split))
    meta = next(iter(splits.values()))["meta"]
    characters = meta["characters"]
    shown = characters if len(characters) <= 80 else f"{characters[:40]} … {characters[-40:]}"
    click.echo(f"characters: {len(characters):,}, digest {meta['charset_digest']}: {shown}")
    click.echo(f"validation: {meta['validation']}")
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in meta["left_out"].items())
    click.echo(f"left out: {left_out or 'nothing'}")


def _line(pack: Path, name: str, split: SplitInfo) -> str:
    return (
        f"{pack}/{name}.lmdb: {counted(split['samples'], 'sample')} of {split['meta']['size']} px, "
        f"{split['occurring']:,} of {counted(split['characters'], 'character')}, "
        f"{counted(split['writers'], 'writer')}, "
        f"{split['bytes']:,} bytes, digest {split['meta']['digest']}"
    )


@main.command()
@click.argument("pack", type=click.Path(path_type=Path))
def verify(pack: Path) -> None:
    """Check every checksum, size, label and count of a pack (exit code 3 where one is wrong)."""
    from hcr.errors import DataError
    from hcr.layout import splits_of
    from hcr.pack.inspect import verify as check

    with meter("verify", " blocks") as progress:
        problems = check(pack, progress)
    for problem in problems:
        note(problem)
    if problems:
        raise DataError(
            f"{pack}: {counted(len(problems), 'problem')}; delete the pack and make it again with hcr-data pack"
        )
    click.echo(f"{pack}: no damage found in {', '.join(splits_of(pack))}")


@main.command()
@click.argument("pack", type=click.Path(path_type=Path))
@click.option("--split", default="train", show_default=True, help="train, val or test.")
@click.option("--char", help="Only this character.")
@click.option("--writer", help="Only this writer.")
@click.option("--count", type=click.IntRange(1, 4096), default=256, show_default=True, help="Pictures at most.")
@click.option("--out", type=click.Path(path_type=Path), default="sheet.png", show_default=True, help="The PNG.")
def show(pack: Path, split: str, char: str | None, writer: str | None, count: int, out: Path) -> None:
    """Write a contact sheet of a pack's pictures.

    \b
    hcr-data show data/packed/drawn-64 --char 永
    hcr-data show data/packed/drawn-64 --split test --writer 0040
    """
    from PIL import Image

    from hcr.files import atomic_write
    from hcr.pack.inspect import contact_sheet

    sheet = contact_sheet(pack, split, char=char, writer=writer, count=count)
    with atomic_write(out) as file:
        Image.fromarray(sheet).save(file, "PNG")
    click.echo(f"{out}: {sheet.shape[1]} × {sheet.shape[0]} pixels")


@main.command()
@charset_option("Characters to draw", default="level1")
@click.option("--count", type=click.IntRange(1, 4096), default=128, show_default=True, help="Pictures.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed; changes the pages.")
@click.option("--out", type=click.Path(path_type=Path), default="sheet.png", show_default=True, help="The PNG.")
def pages(charset: str, count: int, seed: int, out: Path) -> None:
    """Write a contact sheet of drawn pages: what was cut out of each, and below it what a network sees.

    hcr-train --draw trains on such pictures.

    \b
    hcr-data pages --count 64 --seed 1
    """
    from PIL import Image

    from hcr.feed.synthetic import page_sheet
    from hcr.files import atomic_write

    sheet = page_sheet(Charset.named(charset).characters, count, seed)
    with atomic_write(out) as file:
        Image.fromarray(sheet).save(file, "PNG")
    click.echo(f"{out}: {sheet.shape[1]} × {sheet.shape[0]} pixels")


@main.command()
@click.argument("pack", type=click.Path(path_type=Path))
@click.option("--to", "kind", type=click.Choice(["hdf5", "npy", "png", "gnt"]), required=True, help="The format.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file (hdf5) or folder to write.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), multiple=True, help="Only this; repeatable.")
def export(pack: Path, kind: str, out: Path, split: tuple[str, ...]) -> None:
    """Write a pack in a format of other programs, its pictures as they are packed.

    hdf5 is one file (needs pip install 'hcr[hdf5]'), npy two arrays a split, png numbered class folders, gnt a file a
    writer. docs/formats.md describes them; hcr-data pack reads all but npy again.

    \b
    hcr-data export data/packed/drawn-64 --to hdf5 --out drawn-64.hdf5
    hcr-data export data/packed/drawn-64 --to png --out pictures --split test
    """
    from hcr.pack.export import export as write_out

    with meter("export", " samples") as progress:
        counts = write_out(pack, out, kind, split, progress)
    click.echo(f"{out}: {' + '.join(f'{count:,} {name}' for name, count in counts.items())} samples")


if __name__ == "__main__":
    main()
