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
from resnet import resnet20
from safetensors.torch import load_file
from timing import seconds
from torch.nn import functional as F

CASE = Path(__file__).resolve().parents[2] / "target" / "training_step.safetensors"


def main():
    case = sys.argv[1] if len(sys.argv) > 1 else CASE
    for name, layout in [("channels last", torch.channels_last), ("channels first", torch.contiguous_format)]:
        state = load_file(case)
        images, labels = state.pop("images").contiguous(memory_format=layout), state.pop("labels")
        model = resnet20()
        model.load_state_dict(state)
        model = model.to(memory_format=layout)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
        losses = []

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())

        times = seconds(step, rounds=10, warm_up=3)
        print(json.dumps({"layout": name, "seconds": times, "loss": losses[0].item()}), flush=True)


if __name__ == "__main__":
    main()
