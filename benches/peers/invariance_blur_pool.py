"""The published blur pool: time on 32 x 64 x 56 x 56, and with --write FILE its outputs on shared inputs, for comparison.

`cargo run -p vision --example invariance_blur_pool -- FILE` compares them with ours: every kernel, padding mode and side.
"""

import argparse
import json
import statistics
import time

import torch
from antialiased_cnns import BlurPool


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write")
    file = parser.parse_args().write
    torch.set_num_threads(2)
    torch.manual_seed(0)
    if file:
        from safetensors.torch import save_file

        tensors = {}
        for side in range(3, 18):
            tensors[f"input.{side}"] = torch.randn(2, 3, side, side + side % 2)
            for kernel in range(1, 8):
                for mode in ("reflect", "replicate", "zero"):
                    # Reflection needs a side larger than its padding.
                    if mode != "reflect" or side > kernel // 2:
                        pool = BlurPool(3, pad_type=mode, filt_size=kernel, stride=2)
                        tensors[f"{mode}.{kernel}.{side}"] = pool(tensors[f"input.{side}"]).contiguous()
        save_file(tensors, file)
        return
    pool, images = BlurPool(64, filt_size=4, stride=2), torch.rand(32, 64, 56, 56)
    times = []
    with torch.no_grad():
        for _ in range(23):
            start = time.perf_counter()
            pool(images)
            times.append(time.perf_counter() - start)
    print(json.dumps({"model": "BlurPool(64, 4), 32 x 64 x 56 x 56", "seconds": statistics.median(times[3:])}))


if __name__ == "__main__":
    main()
