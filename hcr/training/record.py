"""run.json: what a run was made from, so that its figures can be repeated and its pack found again."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import hcr
from hcr.files import read_json, write_json
from hcr.training.prepare import Plan


def write_record(plan: Plan, start: dict[str, Any]) -> None:
    """Write run.json; `start` (device, workers, step) is added to the starts that it already lists."""
    path = plan.run / "run.json"
    starts = read_json(path)["starts"] if start["step"] and path.is_file() else []
    write_json(
        path,
        {
            "config": asdict(plan.config),
            "pack": {
                "path": plan.pack and str(plan.pack),
                "digests": plan.digests,
                "sources": {name: split.sources for name, split in plan.splits.items()},
            },
            "charset": {"count": len(plan.charset), "digest": plan.charset.digest},
            "versions": {
                "hcr": hcr.__version__,
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "torchvision", "numpy", "lmdb", "pillow")},
            },
            "git": _commit(),
            "starts": [
                *starts,
                start | {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine()},
            ],
        },
    )


def _commit() -> str | None:
    """The commit of the checkout that this program runs from, or None."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(Path(hcr.__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return asked.stdout.strip() or None


def _machine() -> str:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return f"{platform.system()} {name}, {torch.get_num_threads()} threads"


def _processor() -> str:
    """Name the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {names[0]}" if names else platform.machine()
