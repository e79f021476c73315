"""Loads a ResNet-20 that `cargo run -p core-tensor --example export_resnet20 -- FILE` saved, by name, into PyTorch, and
compares logits: exits 0 only if all state-dict names match and logits agree to 1e-5.

Usage: logits.py FILE.safetensors
"""

import sys

import torch
from safetensors.torch import load_file
from training_step import ResNet20


def main():
    state = load_file(sys.argv[1])
    images, expected = state.pop("example.input"), state.pop("example.logits")
    model = ResNet20()
    model.load_state_dict(state, strict=True)
    model.eval()
    with torch.no_grad():
        difference = (model(images) - expected).abs().max().item()
    print(f"largest difference of logits: {difference:.3e}")
    sys.exit(0 if difference <= 1e-5 else 1)


if __name__ == "__main__":
    main()
