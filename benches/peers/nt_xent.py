"""NT-Xent, forward and backward, in PyTorch's tensor operations: normalise, multiply, mask the diagonal, cross-entropy.

    cargo bench -p benches --bench contrast -- nt_xent      # writes target/nt_xent.safetensors
    python nt_xent.py [target/nt_xent.safetensors]

On the embeddings of the bench: 1,024 and 2,048 rows of 128. Needs torch, numpy, safetensors. Prints one JSON object a
size: the loss, and the seconds of 30 runs after five that do not count.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as functional
from safetensors.torch import load_file
from timing import seconds

CASE = Path(__file__).resolve().parents[2] / "target" / "nt_xent.safetensors"


def nt_xent(embeddings, diagonal, partner, temperature=0.5):
    unit = functional.normalize(embeddings, dim=1)
    similarity = unit @ unit.T / temperature
    return functional.cross_entropy(similarity.masked_fill_(diagonal, float("-inf")), partner)


def main():
    case = load_file(sys.argv[1] if len(sys.argv) > 1 else CASE)
    for embeddings in sorted(case.values(), key=len):
        rows = len(embeddings)
        embeddings.requires_grad_(True)
        # They depend on the batch's size alone, so a training makes them once.
        diagonal, partner = torch.eye(rows, dtype=torch.bool), torch.arange(rows).roll(rows // 2)

        def step():
            torch.autograd.grad(nt_xent(embeddings, diagonal, partner), embeddings)

        loss = nt_xent(embeddings, diagonal, partner).item()
        record = {"rows": rows, "loss": loss, "seconds": seconds(step, rounds=30, warm_up=5)}
        print(json.dumps(record | {"threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()
