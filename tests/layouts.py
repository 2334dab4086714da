"""Files as corpora have them, laid for the tests, and what is found in them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from hcr.charset import Charset
from hcr.corpus.find import find_corpus
from hcr.corpus.gnt import encode_record
from hcr.corpus.sample import Corpus, Damage, Sample
from hcr.errors import DataError, HcrError

LEVEL1 = Charset.level1()


def gnt(chars: str = "一丁") -> bytes:
    return b"".join(encode_record(char, np.full((4, 3), 200, np.uint8)) for char in chars)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 3), 200, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def lay(root: Path, *names: str) -> Path:
    """Lay files by their names: samples where the ending is that of samples, one line of text elsewhere."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name))
    return root


def content(name: str) -> bytes:
    return {".gnt": gnt(), ".png": png()}.get(Path(name).suffix.lower(), b"text\n")


def lay_zip(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content(name))
    return path


def lay_hdf5(path: Path, chars: str = "一丁") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["trn/x"] = np.full((len(chars), 1, 8, 8), 255, np.uint8)
        file["trn/y"] = np.frombuffer(chars.encode("gbk"), ">u2")
    return path


def change_a_pixel(path: Path) -> None:
    """Change the first pixel of a GNT file, and nothing of its size."""
    raw = bytearray(path.read_bytes())
    raw[10] ^= 0x40
    path.write_bytes(raw)


def find(*paths: Path, allowed: Charset | None = LEVEL1, numbering: Charset = LEVEL1) -> Corpus:
    return find_corpus(paths, allowed=allowed, numbering=numbering)


def splits(corpus: Corpus) -> dict[str, str | None]:
    return {partition.name: partition.split for partition in corpus.partitions}


def read(corpus: Corpus) -> list[Sample | Damage]:
    return [found for partition in corpus.partitions for found in partition.samples(hashlib.sha256())]


def refusal(*paths: Path, kind: type[HcrError] = DataError, **charsets: Charset) -> str:
    with pytest.raises(kind) as caught:
        find(*paths, **charsets)
    assert "\n" not in str(caught.value)
    return str(caught.value)
