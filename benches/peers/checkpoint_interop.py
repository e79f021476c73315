"""Checkpoints between core-tensor and PyTorch, in both directions.

    cargo build --release -p core-tensor --examples
    python benches/peers/checkpoint_interop.py target/release/examples

Needs torch, numpy and safetensors. Checks that
1. a ResNet-20 written by core-tensor opens in Python's safetensors, loads into the same network written in PyTorch with
   `load_state_dict(strict=True)`, and gives the same logits to 1e-5;
2. a `.pth` written by PyTorch (nested, as DataParallel names it) loads into core-tensor and gives the same logits;
3. a `.pth` converted to safetensors by core-tensor holds the same bits.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from resnet import resnet20
from safetensors import safe_open
from safetensors.torch import load_file

TOLERANCE = 1e-5  # Single precision, twenty layers, logits of order one.


def run(*command):
    subprocess.run([str(part) for part in command], check=True)


def difference(ours, theirs):
    value = (ours - theirs).abs().max().item()
    assert value <= TOLERANCE, f"logits differ by {value}"
    return value


@torch.no_grad()
def main(examples):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        exchange = examples / "exchange_checkpoint"

        run(exchange, "write", folder)
        with safe_open(folder / "ours.safetensors", "pt") as file:
            metadata = file.metadata()
        assert metadata["format"] == "pt" and metadata["schema"] == "core-tensor.state", metadata
        assert json.loads(metadata["header"]) == {"network": "resnet20", "epoch": 0}, metadata
        net = resnet20()
        net.load_state_dict(load_file(folder / "ours.safetensors"), strict=True)
        batch = load_file(folder / "batch.safetensors")
        print(f"ours in PyTorch: logits differ by {difference(net.eval()(batch['images']), batch['logits']):.2e}")

        torch.manual_seed(1)
        net = resnet20()
        net.train()(torch.randn(16, 3, 32, 32))
        theirs = folder / "theirs.pth"
        names = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
        torch.save({"epoch": 7, "state_dict": names, "best_acc1": torch.tensor(91.5)}, theirs)
        run(exchange, "read", theirs, folder)
        ours = load_file(folder / "logits_of_theirs.safetensors")["logits"]
        print(f"theirs in core-tensor: logits differ by {difference(ours, net.eval()(batch['images'])):.2e}")

        run(examples / "convert_checkpoint", theirs, folder / "converted.safetensors")
        converted = load_file(folder / "converted.safetensors")
        assert converted.keys() == names.keys()
        assert all(torch.equal(converted[name], tensor) for name, tensor in names.items())
        print(f"converted: {len(names)} tensors, the same bits")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
