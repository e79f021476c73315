"""Overlap, Jaccard and Hamming of two masks of a ResNet-50, layer by layer and over all, on boolean tensors in PyTorch.

    python mask_analysis.py

On the masks of `benches/transfer.rs`, which a formula gives. Needs torch, numpy. Prints one JSON object: the seconds of
15 analyses after a warm-up, Jaccard and Hamming over all.
"""

import json

import torch
from timing import seconds


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


def mask(shape, step, tenths):
    """Of the weights at place p those whose `step` p mod 2147483647 mod 10 is below `tenths`."""
    places = torch.arange(torch.Size(shape).numel())
    return (places * step % 2147483647 % 10 < tenths).view(shape)


def analyse(first, second):
    layers, both, either, weights = [], 0, 0, 0
    for a, b in zip(first, second):
        intersection = torch.count_nonzero(a & b).item()
        union = torch.count_nonzero(a).item() + torch.count_nonzero(b).item() - intersection
        layers.append(intersection / union)
        both, either = both + intersection, either + union
        weights += a.numel()
    return layers, both / either, (either - both) / weights


def main():
    first = [mask(shape, 48271, 3) for shape in shapes()]
    second = [mask(shape, 69621, 5) for shape in shapes()]
    _, jaccard, hamming = analyse(first, second)
    record = {"weights": sum(mask.numel() for mask in first), "jaccard": jaccard, "hamming": hamming}
    print(json.dumps(record | {"seconds": seconds(lambda: analyse(first, second), rounds=15)}))


main()
