"""One training step of ResNet-20, batch 128 x 3 x 32 x 32, in PyTorch's eager loop, in both memory layouts.

    cargo bench -p benches --bench training_step      # writes target/training_step.safetensors
    python training_step.py [target/training_step.safetensors]

Same network, batch, loss and optimizer as `benches/training_step.rs`, from the same weights: `loss` is that of the
first step. Needs torch, numpy, safetensors. Prints one JSON object a layout, with the seconds of ten steps after three
that do not count.
"""

import json
import sys
from pathlib import Path

import torch
from resnet import resnet20, training

CASE = Path(__file__).resolve().parents[2] / "target" / "training_step.safetensors"


def main():
    case = sys.argv[1] if len(sys.argv) > 1 else CASE
    for name, layout in [("channels last", torch.channels_last), ("channels first", torch.contiguous_format)]:
        found = training(resnet20(), case, layout, lr=0.1, rounds=10, warm_up=3)
        print(json.dumps({"layout": name, **found}), flush=True)


if __name__ == "__main__":
    main()
