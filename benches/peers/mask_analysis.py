"""Overlap, Jaccard and Hamming of two masks of a ResNet-50, layer by layer and over all, on boolean tensors in PyTorch.

    python mask_analysis.py

Prints one JSON object with the median seconds of one analysis.
"""

import json
import statistics
import time

import torch

torch.manual_seed(0)


def shapes():
    """Every convolution of a ResNet-50 but the first."""
    inputs = 64
    for width, blocks in [(64, 3), (128, 4), (256, 6), (512, 3)]:
        for block in range(blocks):
            yield (width, inputs, 1, 1)
            yield (width, width, 3, 3)
            yield (4 * width, width, 1, 1)
            if block == 0:
                yield (4 * width, inputs, 1, 1)
            inputs = 4 * width


def analyse(first, second):
    layers, both, either, differ, weights = [], 0, 0, 0, 0
    for a, b in zip(first, second):
        intersection, union = (a & b).sum().item(), (a | b).sum().item()
        layers.append(intersection / union)
        both, either = both + intersection, either + union
        differ += (a ^ b).sum().item()
        weights += a.numel()
    return layers, both / either, differ / weights


def main():
    first = [torch.rand(shape) < 0.3 for shape in shapes()]
    second = [torch.rand(shape) < 0.5 for shape in shapes()]
    seconds = []
    for _ in range(15):
        start = time.perf_counter()
        analyse(first, second)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"weights": sum(mask.numel() for mask in first), "seconds": statistics.median(seconds)}))


main()
