"""torch.nn.utils.prune on the weights of a ResNet-50.

    python lth_prune.py            seconds for one global mask that drops 80 % of the weights, five times after a
                                   warm-up: by `global_unstructured`, which also applies it, and by `torch.kthvalue`,
                                   masks alone
    python lth_prune.py FOLDER     also compares with the mask that `cargo run --release -p lth --example
                                   global_magnitude -- FOLDER` wrote there, bit for bit (needs `safetensors`)

Prints one JSON object a line.
"""

import json
import resource
import sys
import time

import torch
from timing import seconds
from torch.nn.utils import prune


def resnet50_layers():
    """(name, module) of every convolution and the classifier, in torchvision's names and order."""
    yield "conv1", torch.nn.Conv2d(3, 64, 7, bias=False)
    inputs = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            yield f"{prefix}.conv1", torch.nn.Conv2d(inputs, width, 1, bias=False)
            yield f"{prefix}.conv2", torch.nn.Conv2d(width, width, 3, bias=False)
            yield f"{prefix}.conv3", torch.nn.Conv2d(width, 4 * width, 1, bias=False)
            if block == 0:
                yield f"{prefix}.downsample.0", torch.nn.Conv2d(inputs, 4 * width, 1, bias=False)
            inputs = 4 * width
    yield "fc", torch.nn.Linear(inputs, 1000)


def prune_global(layers):
    start, start_cpu = time.perf_counter(), time.process_time()
    prune.global_unstructured(
        [(module, "weight") for module in layers.values()], pruning_method=prune.L1Unstructured, amount=0.8
    )
    return time.perf_counter() - start, time.process_time() - start_cpu


def masks_by_kthvalue(weights):
    magnitudes = [weight.abs() for weight in weights]
    flat = torch.cat([magnitude.flatten() for magnitude in magnitudes])
    threshold = flat.kthvalue(round(0.8 * len(flat))).values
    return [magnitude > threshold for magnitude in magnitudes]


def main():
    times, extra = [], []
    for _ in range(6):
        torch.manual_seed(0)
        layers = dict(resnet50_layers())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times.append(prune_global(layers))
        extra.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    weights = sum(module.weight.numel() for module in layers.values())
    kept = sum(int(module.weight_mask.count_nonzero()) for module in layers.values())
    walls, cpus = zip(*times[1:])
    # Memory is the first one's: later ones find it there.
    record = {"weights": weights, "kept": kept, "seconds": walls, "cpu_seconds": cpus, "extra_bytes": extra[0] * 1024}
    print(json.dumps({"by": "global_unstructured"} | record), flush=True)
    weights = [module.weight.detach().clone() for module in dict(resnet50_layers()).values()]
    kept = sum(int(mask.count_nonzero()) for mask in masks_by_kthvalue(weights))
    print(json.dumps({"by": "kthvalue", "kept": kept, "seconds": seconds(lambda: masks_by_kthvalue(weights))}))

    if len(sys.argv) > 1:
        compare(sys.argv[1])


def compare(folder):
    import numpy
    from safetensors import safe_open
    from safetensors.torch import load_file

    weights = load_file(f"{folder}/weights.safetensors")
    layers = dict(resnet50_layers())
    for name, module in layers.items():
        module.weight.data.copy_(weights[f"{name}.weight"])
    prune_global(layers)
    different = kept = 0
    with safe_open(f"{folder}/mask.safetensors", "np") as file:
        header = json.loads(file.metadata()["header"])
        for layer in header["layers"]:
            bits = numpy.unpackbits(file.get_tensor(layer["name"]), bitorder="little")
            ours = bits[: numpy.prod(layer["shape"])].reshape(layer["shape"])
            theirs = layers[layer["name"].removesuffix(".weight")].weight_mask.numpy()
            different += int((ours != theirs).sum())
            kept += int(ours.sum())
    print(json.dumps({"layers": len(header["layers"]), "kept": kept, "different_bits": different}))


if __name__ == "__main__":
    main()
