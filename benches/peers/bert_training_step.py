"""A training step of a 4 x 256 BERT classifier, batch 32 x 128, with Hugging Face transformers in PyTorch's eager loop
(median of 8 after 2 warm-up steps).

Same network, loss, dropout and optimizer as `benches/bert.rs`.
"""

import json
import statistics
import time

import torch
from transformers import BertConfig, BertForSequenceClassification

CONFIG = dict(
    vocab_size=8192,
    hidden_size=256,
    num_hidden_layers=4,
    num_attention_heads=8,
    intermediate_size=1024,
    max_position_embeddings=128,
)


def groups(model, decay):
    """Weight decay on all but biases and layer norms."""
    spared = lambda name: name.endswith("bias") or name.endswith("LayerNorm.weight")
    named = list(model.named_parameters())
    return [
        {"params": [p for n, p in named if not spared(n)], "weight_decay": decay},
        {"params": [p for n, p in named if spared(n)], "weight_decay": 0.0},
    ]


def main():
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**CONFIG, num_labels=2)).train()
    optimizer = torch.optim.AdamW(groups(model, 0.01), lr=1e-5)
    ids = torch.randint(5, CONFIG["vocab_size"], (32, 128))
    labels = torch.randint(0, 2, (32,))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    print(json.dumps({"model": "BERT 4 x 256, batch 32 x 128", "seconds": statistics.median(times[2:])}))


if __name__ == "__main__":
    main()
