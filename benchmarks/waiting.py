"""How threads that wait by spinning or by sleeping share a machine.

Steps of the compact network, alone and beside one other busy process, with OMP_WAIT_POLICY unset (spinning) and PASSIVE
(sleeping). Prints pictures a second, the median of three runs in turn.

    python benchmarks/waiting.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

BATCH, STEPS = 64, 15


def measure() -> float:
    """Return pictures a second of one training step, the median of 15, after three that warm up."""
    import torch
    import torch.nn.functional as F

    from hcr.charset import Charset
    from hcr.models import Recognizer

    model = Recognizer("compact", Charset.level1(), 64).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randint(0, 256, (BATCH, 1, 64, 64), dtype=torch.uint8)
    labels = torch.randint(0, 3755, (BATCH,))
    seconds = []
    for _ in range(STEPS + 3):
        began = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return BATCH / statistics.median(seconds[3:])


def main() -> None:
    """Measure each way in a process of its own, in turn, three times."""
    if sys.argv[1:] == ["measure"]:
        print(measure())
        return
    print("beside          policy       pictures a second (three runs)")
    for beside in ("nothing", "a busy process"):
        found: dict[str, list[float]] = {"spinning": [], "PASSIVE": []}
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"])] if beside != "nothing" else []
        for _ in range(3):
            for policy, speeds in found.items():
                environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
                environment |= {"OMP_WAIT_POLICY": "PASSIVE"} if policy == "PASSIVE" else {}
                command = [sys.executable, __file__, "measure"]
                speeds.append(float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout))
        for process in busy:
            process.kill()
        for policy, speeds in found.items():
            listed = ", ".join(f"{speed:.0f}" for speed in speeds)
            print(f"{beside:15s} {policy:10s} {statistics.median(speeds):8.0f}   ({listed})")


if __name__ == "__main__":
    main()
