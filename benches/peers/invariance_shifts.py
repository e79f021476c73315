"""Features of ResNet-18 for a 32 x 32 object at all 65 x 65 positions of a 96 x 96 canvas, evaluated naively in batches.

Same network and work as `benches/invariance.rs`: as torchvision builds it, eager, evaluation mode, no gradients, 2 threads,
batches of 128. Three ways a user may run it: as built, channels-last, and channels-last with batch norms folded.
"""

import argparse
import copy
import json
import time

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import resnet18


def batches(obj, rows, size):
    positions = [(i, j) for i in range(rows) for j in range(65)]
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for start in range(0, len(positions), size):
        some = positions[start : start + size]
        images = torch.ones(len(some), 3, 96, 96)
        for image, (i, j) in zip(images, some):
            image[:, i : i + 32, j : j + 32] = obj
        yield (images - mean) / deviation


def folded(model):
    model = copy.deepcopy(model)
    model.conv1, model.bn1 = fuse_conv_bn_eval(model.conv1, model.bn1), nn.Identity()
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage:
            block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), nn.Identity()
            block.conv2, block.bn2 = fuse_conv_bn_eval(block.conv2, block.bn2), nn.Identity()
            if block.downsample is not None:
                block.downsample = fuse_conv_bn_eval(*block.downsample)
    return model


@torch.no_grad()
def seconds(model, obj, rows, channels_last):
    start = time.perf_counter()
    for images in batches(obj, rows, 128):
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        model(images)
    return (time.perf_counter() - start) * 65 / rows


def main():
    parser = argparse.ArgumentParser()
    # A part of the rows, scaled up: the naive evaluation takes the same time for each.
    parser.add_argument("--rows", type=int, default=65)
    rows = parser.parse_args().rows
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = resnet18(weights=None).eval()
    model.fc = nn.Identity()
    obj = torch.rand(3, 32, 32)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    fused = folded(model).to(memory_format=torch.channels_last)
    for name, network, channels_last in [("as built", model, False), ("channels last", last, True), ("folded", fused, True)]:
        network(torch.zeros(128, 3, 96, 96))
        print(json.dumps({"model": name, "rows": rows, "seconds": seconds(network, obj, rows, channels_last)}))


if __name__ == "__main__":
    main()
