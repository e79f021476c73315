"""The published blur pool: time on 32 x 64 x 56 x 56, and with --write FILE its outputs on shared inputs, for
comparison.

`cargo run -p vision --example invariance_blur_pool -- FILE` compares them with ours: every kernel, padding mode and
side. What is timed has the input of `benches/invariance.rs`, which a formula gives; both memory layouts are timed.
Needs torch, numpy, antialiased-cnns, and for --write safetensors. Prints one JSON object a layout: the output's mean
square, the seconds of 20 runs after three that do not count.
"""

import argparse
import json

import torch
from antialiased_cnns import BlurPool
from timing import seconds


def write(file):
    from safetensors.torch import save_file

    torch.manual_seed(0)
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


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write")
    file = parser.parse_args().write
    if file:
        write(file)
        return
    places = torch.arange(32 * 64 * 56 * 56)
    images = (places * 48271 % 2147483647 % 1000 / 1000).view(32, 64, 56, 56)
    for name, layout in [("channels last", torch.channels_last), ("channels first", torch.contiguous_format)]:
        pool = BlurPool(64, filt_size=4, stride=2).to(memory_format=layout)
        inputs = images.contiguous(memory_format=layout)
        mean_square = pool(inputs).double().square().mean().item()
        times = seconds(lambda: pool(inputs), rounds=20, warm_up=3)
        print(json.dumps({"layout": name, "mean_square": mean_square, "seconds": times}), flush=True)


if __name__ == "__main__":
    main()
