"""A quantised training step in PyTorch: ResNet-20, batch 128 x 3 x 32 x 32, 8/8/8 bits, and stochastic rounding of 10 M
floats.

    cargo bench -p benches --bench fractrain -- step      # writes target/fractrain_step.safetensors
    python fractrain_step.py [target/fractrain_step.safetensors] [--rounds 8]

The same network, weights, batch, optimizer and numerics as `benches/fractrain.rs`, composed of PyTorch operations:
weights rounded per output channel and inputs per tensor by min and max with straight-through gradients, gradients of
convolution outputs rounded stochastically in an autograd function. The second variant rounds forward with
`torch.fake_quantize_*`, the kernels of PyTorch's fake-quantisation modules (whose zero point is an integer), and has
the same gradient function. Both are timed in both memory layouts; `loss` is that of the first step. Needs torch, numpy,
safetensors. Prints one JSON object a line, with the seconds of each round after two that do not count.
"""

import argparse
import json
from pathlib import Path

import torch
from resnet import resnet20, training
from timing import seconds
from torch import nn
from torch.nn import functional as F

CASE = Path(__file__).resolve().parents[2] / "target" / "fractrain_step.safetensors"
BITS = 8
STEPS = 2**BITS - 1


def grid(low, high):
    return torch.clamp((high - low) / STEPS, min=1e-38), low


class Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high):
        step, low = grid(low, high)
        return x.sub(low).div_(step).clamp_(0, STEPS).round_().mul_(step).add_(low)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None


class RoundGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, gradient):
        return stochastic(gradient)


def stochastic(x):
    step, low = grid(*torch.aminmax(x))
    noise = torch.rand_like(x).sub_(0.5)
    return x.sub(low).div_(step).add_(noise).clamp_(0, STEPS).round_().mul_(step).add_(low)


class QuantConv(nn.Conv2d):
    fake_quant = False

    def forward(self, x):
        flat = self.weight.detach().flatten(1)
        low, high = torch.aminmax(flat, dim=1)
        if self.fake_quant:
            step = torch.clamp((high - low) / STEPS, min=1e-38)
            zero = torch.round(-low / step).to(torch.int32).clamp_(0, STEPS)
            weight = torch.fake_quantize_per_channel_affine(self.weight, step, zero, 0, 0, STEPS)
            low, high = torch.aminmax(x.detach())
            step = torch.clamp((high - low) / STEPS, min=1e-38)
            zero = torch.round(-low / step).to(torch.int32).clamp_(0, STEPS)
            x = torch.fake_quantize_per_tensor_affine(x, step, zero, 0, STEPS)
        else:
            shape = (-1, 1, 1, 1)
            weight = Affine.apply(self.weight, low.view(shape), high.view(shape))
            x = Affine.apply(x, *torch.aminmax(x.detach()))
        return RoundGradient.apply(F.conv2d(x, weight, None, self.stride, self.padding))


def quantised(network):
    """With every convolution replaced by one that rounds."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                sizes = child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding
                setattr(module, name, QuantConv(*sizes, bias=False))
    return network


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("case", nargs="?", default=CASE)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    for name in ["composed", "fake_quant"]:
        for label, layout in [("channels first", torch.contiguous_format), ("channels last", torch.channels_last)]:
            torch.manual_seed(0)
            QuantConv.fake_quant = name == "fake_quant"
            model = quantised(resnet20())
            found = training(model, arguments.case, layout, lr=0.01, rounds=arguments.rounds, warm_up=2)
            print(json.dumps({"step": f"{name}, {label}", **found}), flush=True)
    values = torch.randn(10_000_000)
    times = seconds(lambda: stochastic(values), arguments.rounds, warm_up=2)
    print(json.dumps({"step": "stochastic, 10 M", "seconds": times}))


if __name__ == "__main__":
    main()
