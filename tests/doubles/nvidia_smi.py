#!/usr/bin/env -S python3 -S
"""Stands for nvidia-smi: GPUs of DOUBLE_GPUS (name:capability:total:free, comma-separated), CUDA of DOUBLE_CUDA.

Started several times in each build, so without site-packages, which take as long again.
"""

import argparse
import os
import sys

OVERVIEW = """+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 590.44.01              Driver Version: 590.44.01      CUDA Version: {cuda}     |
+-----------------------------------------+------------------------+----------------------+
"""


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--query-gpu", type=lambda text: text.split(","))
    parser.add_argument("--format")
    arguments = parser.parse_args()
    gpus = [gpu.split(":") for gpu in os.environ["DOUBLE_GPUS"].split(",") if gpu]
    if not gpus:
        say("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
        return 9
    if arguments.query_gpu is None:
        say(OVERVIEW.format(cuda=os.environ["DOUBLE_CUDA"]))
        return 0
    for index, (name, capability, total, free) in enumerate(gpus):
        used = str(int(total) - int(free))
        fields = {"index": str(index), "uuid": f"GPU-{index}", "name": name, "compute_cap": capability}
        fields |= {"memory.total": total, "memory.free": free, "memory.used": used}
        say(", ".join(fields[field] for field in arguments.query_gpu))
    return 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
