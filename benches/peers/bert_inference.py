"""Inference of a classifier of BERT-base's shape, batch 8 x 128, with Hugging Face transformers on PyTorch (median of 8
after 2 warm-up passes), and of its hidden states alone.

Random weights: they do not matter for the time. Same shapes as `benches/bert.rs`.
"""

import json
import statistics
import time

import torch
from transformers import BertConfig, BertForSequenceClassification


def median_of(run):
    times = []
    for _ in range(10):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


@torch.no_grad()
def main():
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_labels=2)).eval()
    ids = torch.randint(5, 30522, (8, 128))
    print(json.dumps({"model": "classify", "seconds": median_of(lambda: model(input_ids=ids))}))
    print(json.dumps({"model": "hidden", "seconds": median_of(lambda: model.bert(input_ids=ids))}))


if __name__ == "__main__":
    main()
