"""Runs our runtime with a share of the GPU's memory. Layer: tooling; torch.

`python -m bench.serving.small_gpu SHARE serve ...`: beyond SHARE (0 to 1) of the device torch's allocator
says that memory ran out, as a smaller device would.
"""

from __future__ import annotations

import os
import sys

import torch

from agent_runtime.__main__ import main

if __name__ == "__main__":
    torch.cuda.set_per_process_memory_fraction(float(sys.argv.pop(1)))
    os._exit(main(sys.argv[1:]))
