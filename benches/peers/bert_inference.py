"""Inference of a classifier of BERT-base's shape, batch 8 x 128, with Hugging Face transformers on PyTorch, and of its
hidden states alone.

Random weights: they do not matter for the time. Same shapes as `benches/bert.rs`. Needs torch, transformers < 5. Each
attention that transformers has for a CPU is timed. Prints one JSON object a part and attention, with the seconds of
eight passes after two that do not count; the last of a part is the faster one again, with `"fastest": true`.
"""

import json
import statistics

import torch
from timing import seconds
from transformers import BertConfig, BertForSequenceClassification


@torch.inference_mode()
def main():
    records = []
    for attention in ("sdpa", "eager"):
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(num_labels=2, attn_implementation=attention)).eval()
        ids = torch.randint(5, 30522, (8, 128))
        for name, part in [("classify", model), ("hidden", model.bert)]:
            times = seconds(lambda: part(input_ids=ids), rounds=8, warm_up=2)
            records.append({"model": name, "attention": attention, "seconds": times})
    for name in ("classify", "hidden"):
        of_part = [record for record in records if record["model"] == name]
        fastest = min(of_part, key=lambda record: statistics.median(record["seconds"]))
        for record in [*of_part, fastest | {"fastest": True}]:
            print(json.dumps(record))


if __name__ == "__main__":
    main()
