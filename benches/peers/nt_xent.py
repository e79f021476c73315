"""NT-Xent, forward and backward, in PyTorch's tensor operations: normalise, multiply, mask the diagonal, cross-entropy.

    python nt_xent.py          median seconds for 1,024 and 2,048 rows of 128

Prints one JSON object a line.
"""

import json
import statistics
import time

import torch
import torch.nn.functional as functional


def nt_xent(embeddings, temperature=0.5):
    rows = embeddings.shape[0]
    unit = functional.normalize(embeddings, dim=1)
    similarity = unit @ unit.T / temperature
    similarity = similarity.masked_fill(torch.eye(rows, dtype=torch.bool), float("-inf"))
    partner = torch.arange(rows).roll(rows // 2)
    return functional.cross_entropy(similarity, partner)


def main():
    torch.manual_seed(0)
    for rows in (1024, 2048):
        embeddings = torch.randn(rows, 128, requires_grad=True)
        seconds = []
        for repeat in range(35):
            start = time.perf_counter()
            torch.autograd.grad(nt_xent(embeddings), embeddings)
            if repeat >= 5:
                seconds.append(time.perf_counter() - start)
        print(json.dumps({"rows": rows, "seconds": statistics.median(seconds), "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
