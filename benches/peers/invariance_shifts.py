"""Features of ResNet-18 for a 32 x 32 object at all 65 x 65 positions of a 96 x 96 canvas, evaluated naively in
batches.

    cargo bench -p benches --bench invariance -- shifts      # writes target/invariance_shifts.safetensors
    python invariance_shifts.py [target/invariance_shifts.safetensors] [--rows 65] [--rounds 3]

Same network, weights, object and work as `benches/invariance.rs`: torchvision's network, eager, evaluation mode, no
gradients, batches of 128. Three ways a user may run it: as built, channels-last, and channels-last with batch norms
folded. With fewer rows of positions the seconds are scaled to all. Needs torch, torchvision, numpy, safetensors. Prints
one JSON object a way: the mean of all features, the seconds of each round after a warm-up batch.
"""

import argparse
import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from timing import seconds
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import resnet18

CASE = Path(__file__).resolve().parents[2] / "target" / "invariance_shifts.safetensors"
BATCH = 128


def batches(obj, rows):
    positions = [(i, j) for i in range(rows) for j in range(65)]
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    white, obj = (1 - mean) / deviation, (obj - mean) / deviation
    for start in range(0, len(positions), BATCH):
        some = positions[start : start + BATCH]
        images = white.expand(len(some), 3, 96, 96).contiguous()
        for image, (i, j) in zip(images, some):
            image[:, i : i + 32, j : j + 32] = obj
        yield images


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


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("case", nargs="?", default=CASE)
    # A part of the rows, scaled up: the naive evaluation takes the same time for each.
    parser.add_argument("--rows", type=int, default=65)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    state = load_file(arguments.case)
    obj = state.pop("object")
    model = resnet18(weights=None).eval()
    model.load_state_dict(state)
    model.fc = nn.Identity()
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    fused = folded(model).to(memory_format=torch.channels_last)
    for name, network, layout in [
        ("as built", model, torch.contiguous_format),
        ("channels last", last, torch.channels_last),
        ("folded", fused, torch.channels_last),
    ]:
        features = []

        def evaluate():
            images = (batch.contiguous(memory_format=layout) for batch in batches(obj, arguments.rows))
            features.append(torch.cat([network(batch) for batch in images]))

        network(next(batches(obj, 2)).contiguous(memory_format=layout))
        times = [time * 65 / arguments.rows for time in seconds(evaluate, arguments.rounds, warm_up=0)]
        record = {"model": name, "rows": arguments.rows, "mean_feature": features[-1].double().mean().item()}
        print(json.dumps(record | {"seconds": times}), flush=True)


if __name__ == "__main__":
    main()
