"""What `benches/grouping.rs` times, by pytorch-metric-learning 2.9.0 with faiss-cpu: Recall@{1, 10, 100, 1000}, R-precision
and MAP@R of 60,000 vectors of 512 numbers in classes of five, and the multi-similarity loss of a batch of 512.

Recall@K beyond 1 is not among its metrics, so it is read off the neighbours that faiss returns, as its users do.
Prints one JSON object a line. `grouping_speed.py loss` times the loss only.
"""

import json
import resource
import sys
import time

import torch
from pytorch_metric_learning import losses

ITEMS, DIM = 60_000, 512


def classes_of_five(count, dim):
    torch.manual_seed(0)
    centres = torch.rand(count // 5, 1, dim) * 2 - 1
    rows = (centres + (torch.rand(count // 5, 5, dim) * 2 - 1) * 2).view(count, dim)
    return torch.nn.functional.normalize(rows), torch.arange(count) // 5


def time_loss():
    rows, _ = classes_of_five(515, DIM)
    rows = rows[:512].clone().requires_grad_(True)
    labels = torch.arange(512) // 4
    loss = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        loss(rows, labels).backward()
        seconds.append(time.perf_counter() - start)
    seconds.sort()
    print(json.dumps({"bench": "multi-similarity", "seconds": seconds[len(seconds) // 2], "fastest": seconds[0]}))


def time_evaluation():
    import faiss
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    faiss.omp_set_num_threads(2)
    rows, labels = classes_of_five(ITEMS, DIM)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    found = calculator.get_accuracy(rows, labels)
    middle, middle_cpu = time.perf_counter(), time.process_time()
    index = faiss.IndexFlatL2(DIM)
    index.add(rows.numpy())
    _, neighbours = index.search(rows.numpy(), 1001)
    same = labels[torch.from_numpy(neighbours[:, 1:])] == labels[:, None]
    recall = {k: same[:, :k].any(1).float().mean().item() for k in (1, 10, 100, 1000)}
    end, end_cpu = time.perf_counter(), time.process_time()
    record = {
        "bench": "evaluate",
        "seconds": end - start,
        "cpu_seconds": end_cpu - cpu,
        "seconds_of_one_search": end - middle,
        "cpu_seconds_of_one_search": end_cpu - middle_cpu,
        "peak_bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
        "recall": recall,
        "map_at_r": found["mean_average_precision_at_r"],
    }
    print(json.dumps(record))


if __name__ == "__main__":
    torch.set_num_threads(2)
    time_loss()
    if "loss" not in sys.argv[1:]:
        time_evaluation()
