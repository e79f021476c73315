"""A quantised training step in PyTorch: ResNet-20, batch 128 x 3 x 32 x 32, 8/8/8 bits, and stochastic rounding of 10 M floats.

The same network, batch, optimizer and numerics as `benches/fractrain.rs`, composed of PyTorch operations: weights rounded
per output channel and inputs per tensor by min and max with straight-through gradients, gradients of convolution outputs
rounded stochastically in an autograd function. The second variant rounds forward with `torch.fake_quantize_*`, the kernels
of PyTorch's fake-quantisation modules (whose zero point is an integer), and has the same gradient function. Both are
timed in both memory layouts.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

BITS = 8
STEPS = 2**BITS - 1


def grid(x, low, high):
    return torch.clamp((high - low) / STEPS, min=1e-38), low


class Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high):
        step, low = grid(x, low, high)
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
    step, low = grid(x, x.min(), x.max())
    noise = torch.rand_like(x).sub_(0.5)
    return x.sub(low).div_(step).add_(noise).clamp_(0, STEPS).round_().mul_(step).add_(low)


class QuantConv(nn.Conv2d):
    fake_quant = False

    def forward(self, x):
        flat = self.weight.detach().flatten(1)
        low, high = flat.amin(1), flat.amax(1)
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
            x = Affine.apply(x, x.detach().min(), x.detach().max())
        return RoundGradient.apply(F.conv2d(x, weight, None, self.stride, self.padding))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = QuantConv(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = QuantConv(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(QuantConv(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet20(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv1 = QuantConv(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks, inputs = [], 16
        for width, stride in [(16, 1), (32, 2), (64, 2)]:
            for index in range(3):
                blocks.append(Block(inputs, width, stride if index == 0 else 1))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def timed(work, rounds):
    times = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,))
    for name in ["composed", "fake_quant"]:
        for layout in [torch.contiguous_format, torch.channels_last]:
            torch.manual_seed(0)
            QuantConv.fake_quant = name == "fake_quant"
            model = ResNet20()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
            inputs = images.contiguous(memory_format=layout)

            def step():
                optimizer.zero_grad()
                F.cross_entropy(model(inputs), labels).backward()
                optimizer.step()

            label = "last" if layout is torch.channels_last else "first"
            print(json.dumps({"step": f"{name}, channels {label}", "seconds": timed(step, rounds)}), flush=True)
    values = torch.randn(10_000_000)
    print(json.dumps({"step": "stochastic, 10 M", "seconds": timed(lambda: stochastic(values), rounds)}))


if __name__ == "__main__":
    main()
