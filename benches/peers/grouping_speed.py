"""What `benches/grouping.rs` times, by pytorch-metric-learning 2.9.0 and faiss-cpu: Recall@{1, 10, 100, 1000},
R-precision and MAP@R of 60,000 vectors of 512 numbers in classes of five, and the multi-similarity loss of a batch of
512.

    cargo bench -p benches --bench grouping -- 512      # writes target/grouping_{loss,vectors}.safetensors
    python grouping_speed.py [loss|evaluate] [--target target] [--rounds 3]

On the bench's own vectors. Recall@K beyond 1 is not among pytorch-metric-learning's metrics. So the same figures are
had in two ways: all from one search by faiss ("faiss"), and R-precision and MAP@R from pytorch-metric-learning beside a
search by faiss for Recall@K ("pytorch-metric-learning and faiss", once only). The seconds are those of search and
metrics. Needs torch, numpy, safetensors, faiss-cpu, pytorch-metric-learning. Prints one JSON object a line.
"""

import argparse
import json
import resource
from pathlib import Path

import torch
from pytorch_metric_learning import losses
from safetensors.torch import load_file
from timing import seconds

TARGET = Path(__file__).resolve().parents[2] / "target"
RECALL_AT = (1, 10, 100, 1000)


def time_loss(target):
    case = load_file(target / "grouping_loss.safetensors")
    rows, labels = case["rows"].requires_grad_(True), case["labels"]
    loss = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)

    def step():
        rows.grad = None
        loss(rows, labels).backward()

    record = {"bench": "multi-similarity", "loss": loss(rows, labels).item()}
    print(json.dumps(record | {"seconds": seconds(step, rounds=30, warm_up=3)}), flush=True)


def same_class(rows, labels, furthest):
    """Of every vector's nearest others, nearest first, whether they are of its class."""
    import faiss

    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows.numpy())
    _, neighbours = index.search(rows.numpy(), furthest + 1)
    return labels[torch.from_numpy(neighbours[:, 1:])] == labels[:, None]


def recalls(same):
    first = torch.where(same.any(1), same.to(torch.uint8).argmax(1), same.shape[1])
    return {f"recall_{k}": (first < k).double().mean().item() for k in RECALL_AT}


def by_faiss(rows, labels):
    same = same_class(rows, labels, max(RECALL_AT))
    _, place, size = labels.unique(return_inverse=True, return_counts=True)
    relevant = size[place, None] - 1
    ranks = torch.arange(1, relevant.max() + 1)
    near = same[:, : len(ranks)] & (ranks <= relevant)
    precision = near.cumsum(1) / ranks
    found = {"r_precision": (near.sum(1, keepdim=True) / relevant).double().mean().item()}
    found["map_at_r"] = ((precision * near).sum(1, keepdim=True) / relevant).double().mean().item()
    return recalls(same) | found


def by_both(rows, labels):
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    metrics = ("r_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=metrics, k="max_bin_count", device=torch.device("cpu"))
    found = calculator.get_accuracy(rows, labels)
    found["map_at_r"] = found.pop("mean_average_precision_at_r")
    return recalls(same_class(rows, labels, max(RECALL_AT))) | found


def time_evaluation(target, rounds):
    case = load_file(target / "grouping_vectors.safetensors")
    rows, labels = case["rows"], case["labels"]
    # A warm-up of both on some of them: all would take half a minute.
    few = rows[:5000].contiguous(), labels[:5000]
    by_both(*few), by_faiss(*few)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, evaluate, rounds in [("faiss", by_faiss, rounds), ("pytorch-metric-learning and faiss", by_both, 1)]:
        found = []
        times = seconds(lambda: found.append(evaluate(rows, labels)), rounds, warm_up=0)
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        record = {"bench": "evaluate", "by": name, "peak_bytes": peak, **found[-1], "seconds": times}
        print(json.dumps(record), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", choices=["loss", "evaluate"])
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.only != "evaluate":
        time_loss(arguments.target)
    if arguments.only != "loss":
        time_evaluation(arguments.target, arguments.rounds)


if __name__ == "__main__":
    main()
