"""Ways to store handwriting: each takes GNT files and leaves a store, as its own documentation recommends.

All but the tutorial's (pictures as they are; its loader resizes) hold the same 64 px pictures, made by the project's
own `fit_square`, so that what is compared is the way of storing. Labels are code points. Where a library can
use several processes, it gets one for each core.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import Pool
from pathlib import Path
from struct import Struct

import numpy as np
from common import SIZE, cores
from PIL import Image

from hcr.preprocess.fit import fit_square

_HEADER = Struct("<I2sHH")


def records(file: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Read a GNT file record by record, as people's scripts do: pictures uint8[H, W] and code points."""
    with file.open("rb") as opened:
        while header := opened.read(_HEADER.size):
            _, tag, width, height = _HEADER.unpack(header)
            picture = np.frombuffer(opened.read(width * height), np.uint8).reshape(height, width)
            yield picture, ord(tag.rstrip(b"\0").decode("gbk"))


def count_records(file: Path) -> int:
    """Count a GNT file's records by their headers alone."""
    count, place, end = 0, 0, file.stat().st_size
    with file.open("rb") as opened:
        while place < end:
            opened.seek(place)
            place += _HEADER.unpack(opened.read(_HEADER.size))[0]
            count += 1
    return count


def fitted(files: list[Path]) -> Iterator[tuple[np.ndarray, int]]:
    """Return every picture as uint8[64, 64] with its code point."""
    for file in files:
        for picture, label in records(file):
            yield fit_square(picture, SIZE), label


def png(picture: np.ndarray) -> bytes:
    """Encode a grey picture with Pillow's own settings."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _write_pack(files: list[Path], out: Path, workers: int) -> None:
    from hcr.cli.data import main

    (folder,) = {file.parent for file in files}
    arguments = ["pack", str(folder), "--size", str(SIZE), "--charset", "all", "--val", "0", "--out", str(out)]
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        main([*arguments, "--workers", str(workers)], standalone_mode=False)


def _write_png(pictures: Iterator[tuple[np.ndarray, int]], out: Path) -> None:
    known: set[int] = set()
    for number, (picture, label) in enumerate(pictures):
        folder = out / f"{label:05d}"
        if label not in known:
            known.add(label)
            folder.mkdir(parents=True)
        Image.fromarray(picture).save(folder / f"{number}.png")


def _write_native_png(files: list[Path], out: Path) -> None:
    _write_png((record for file in files for record in records(file)), out)
    # The tutorial's loader reads names and labels from a list file.
    listed = (f"{path.relative_to(out)} {int(path.parent.name)}\n" for path in sorted(out.glob("*/*.png")))
    (out / "list.txt").write_text("".join(listed))


def _write_fitted_png(files: list[Path], out: Path) -> None:
    _write_png(fitted(files), out)


def _write_hdf5(files: list[Path], out: Path) -> None:
    import h5py

    count = sum(map(count_records, files))
    with h5py.File(out, "w") as file:
        images = file.create_dataset("trn/x", (count, 1, SIZE, SIZE), "uint8")
        labels = file.create_dataset("trn/y", (count, 1), "uint16")
        for number, (picture, label) in enumerate(fitted(files)):
            images[number] = picture
            labels[number] = label


def _write_lmdb(files: list[Path], out: Path, encode: Callable[[np.ndarray], bytes]) -> None:
    import lmdb

    env = lmdb.open(str(out), map_size=1 << 40)
    transaction, number = env.begin(write=True), -1
    for number, (picture, label) in enumerate(fitted(files)):
        transaction.put(b"%09d" % number, label.to_bytes(2, "little") + encode(picture))
        if number % 5000 == 4999:
            transaction.commit()
            transaction = env.begin(write=True)
    transaction.put(b"count", str(number + 1).encode())
    transaction.commit()
    env.close()


def _write_lmdb_png(files: list[Path], out: Path) -> None:
    _write_lmdb(files, out, png)


def _write_lmdb_raw(files: list[Path], out: Path) -> None:
    _write_lmdb(files, out, np.ndarray.tobytes)


def _write_shards(task: tuple[int, list[Path], Path]) -> None:
    import webdataset

    part, files, out = task
    pattern = f"{out}/part{part}-%05d.tar"
    with webdataset.ShardWriter(pattern, maxcount=5000, verbose=0) as writer:
        for number, (picture, label) in enumerate(fitted(files)):
            writer.write({"__key__": f"{part}-{number:08d}", "png": png(picture), "cls": label})


def _write_webdataset(files: list[Path], out: Path) -> None:
    out.mkdir()
    parts = cores()
    with Pool(parts) as pool:
        pool.map(_write_shards, [(part, files[part::parts], out) for part in range(parts)])


def litdata_samples(file: str) -> Iterator[dict[str, object]]:
    """Return a file's samples as litdata stores them fastest: uint8 tensors, not encoded."""
    import torch

    for picture, label in fitted([Path(file)]):
        yield {"image": torch.from_numpy(picture)[None], "class": label}


def _write_litdata(files: list[Path], out: Path) -> None:
    import litdata

    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = f"{out}.cache"
    inputs = [str(file) for file in files]
    litdata.optimize(litdata_samples, inputs, str(out), num_workers=min(cores(), len(files)), chunk_bytes="64MB")


def datasets_samples(files: list[str]) -> Iterator[dict[str, object]]:
    """Return samples as Hugging Face datasets takes them; its Image feature encodes them as PNG."""
    for picture, label in fitted([Path(file) for file in files]):
        yield {"image": Image.fromarray(picture), "label": label}


def _write_datasets(files: list[Path], out: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    made = datasets.Dataset.from_generator(
        datasets_samples,
        features=features,
        cache_dir=f"{out}.cache",
        gen_kwargs={"files": [str(file) for file in files]},
        num_proc=min(cores(), len(files)),
    )
    made.to_parquet(out)


@dataclass(frozen=True)
class Store:
    """A way to store: what it is called, the distribution it needs, and the function that writes it."""

    name: str
    package: str | None
    write: Callable[[list[Path], Path], None]
    processes: str = "1"


STORES = {
    "pack": Store("**hcr-data pack**", None, lambda files, out: _write_pack(files, out, cores()), "all cores"),
    "pack-1": Store("**hcr-data pack**, one worker", None, lambda files, out: _write_pack(files, out, 1), "1"),
    "png-native": Store("PNG files, native size (the tutorial's way)", None, _write_native_png),
    "png-64": Store("PNG files, 64 px", None, _write_fitted_png),
    "hdf5": Store("HDF5, fixed shape", "h5py", _write_hdf5),
    "lmdb-png": Store("LMDB, a PNG a value", "lmdb", _write_lmdb_png),
    "lmdb-raw": Store("LMDB, a raw picture a value", "lmdb", _write_lmdb_raw),
    "webdataset": Store("webdataset shards of PNG", "webdataset", _write_webdataset, "all cores"),
    "litdata": Store("litdata chunks, raw", "litdata", _write_litdata, "all cores"),
    "datasets": Store("Hugging Face datasets, parquet of PNG", "datasets", _write_datasets, "all cores"),
}
