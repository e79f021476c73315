"""One training step of ResNet-20, batch 128 x 3 x 32 x 32, in PyTorch's eager loop (median of 10 after 3 warm-up steps).

Same network, loss and optimizer as `benches/training_step.rs`.
"""

import json
import statistics
import time

import torch
from resnet import resnet20
from torch.nn import functional as F


def main():
    torch.manual_seed(0)
    model = resnet20()
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    times = []
    for _ in range(13):
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    print(json.dumps({"model": "ResNet-20, batch 128", "seconds": statistics.median(times[3:])}))


if __name__ == "__main__":
    main()
