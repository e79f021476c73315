"""AutoAttack standard: the package (`pyautoattack`, the authors' code repackaged) on the weights and images of a case file.

    cargo run --release -p contrast --example attack_case -- train FASHION_MNIST_FOLDER case.safetensors
    cargo run --release -p contrast --example attack_case -- autoattack case.safetensors ours.safetensors 500
    python attack_autoattack.py case.safetensors 500 [ours.safetensors]

Needs torch, safetensors, pyautoattack. Prints one JSON object: robust accuracy, wall and CPU seconds; with `ours.safetensors`
also what this side's network says of our adversarial images, and their distances.
"""

import json
import sys
import time

import torch
from attack_models import load, robust_accuracy
from safetensors.torch import load_file

RADIUS = 0.1


def main():
    case, count = sys.argv[1], int(sys.argv[2])
    model, images, labels = load(case, halve=True)
    images, labels = images[:count], labels[:count]
    if len(sys.argv) > 3:
        ours = load_file(sys.argv[3])["autoattack"]
        print(
            json.dumps(
                {
                    "peer": "ours, judged here",
                    "robust_accuracy": robust_accuracy(model, ours, labels),
                    "largest_distance": (ours - images).abs().max().item(),
                    "box": [ours.min().item(), ours.max().item()],
                }
            )
        )

    from pyautoattack import AutoAttack

    start, cpu = time.perf_counter(), time.process_time()
    attack = AutoAttack(model, norm="Linf", eps=RADIUS, seed=0, device="cpu", version="standard")
    attack.verbose = False
    found = attack.run_standard_evaluation(images, labels, batch_size=250)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    found = found[0] if isinstance(found, tuple) else found
    print(
        json.dumps(
            {
                "peer": "pyautoattack",
                "robust_accuracy": robust_accuracy(model, found, labels),
                "seconds": wall,
                "cpu_seconds": cpu,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
