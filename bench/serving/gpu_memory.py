"""What a loaded model takes of the GPU, by torch and by the reader behind /stats. Layer: tooling; torch.

`python -m bench.serving.gpu_memory FOLDER` prints one JSON object, in MiB and seconds: the model is loaded as
the server loads it, answers once, and both are asked in the same moment.
"""

from __future__ import annotations

import json
import sys
import time

from agent_runtime.contract import ModelConfig
from agent_runtime.llm.load import load_model
from agent_runtime.observability.gpu import GpuReader

MIB = 2**20


def main(folder: str) -> int:
    import torch

    loaded = load_model(ModelConfig(uri=folder, served_name=folder, path=folder, device="cuda"))
    with torch.inference_mode():
        loaded.model.generate(torch.tensor([[1, 2, 3]], device=loaded.device), max_new_tokens=1)
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    reader = GpuReader(wait_seconds=5.0)
    begun = time.monotonic()
    told = reader.read()
    seconds = time.monotonic() - begun
    weights = sum(one.numel() * one.element_size() for one in loaded.model.parameters())
    print(
        json.dumps(
            {
                "weights": round(weights / MIB),
                "torch allocated": round(torch.cuda.memory_allocated() / MIB),
                "torch reserved": round(torch.cuda.memory_reserved() / MIB),
                "CUDA, total - free": round((total - free) / MIB),
                "CUDA, total": round(total / MIB),
                "reader, used": round(told[0].memory_used / MIB) if told else None,
                "reader, total": round(told[0].memory_total / MIB) if told else None,
                "reader, seconds of the first reading": round(seconds, 4),
                "load phases, seconds": {name: round(value, 2) for name, value in loaded.phases.items()},
                "device": loaded.device,
                "dtype": str(loaded.model.dtype),
            }
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
