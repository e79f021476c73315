"""A training step of a 4 x 256 BERT classifier, batch 32 x 128, with Hugging Face transformers in PyTorch's eager loop.

    cargo bench -p benches --bench bert -- train
    python bert_training_step.py target/bert_train_tiny.safetensors target/bert_train_tiny_cut.safetensors

Same network, weights, batch, loss, dropout and optimizer as `benches/bert.rs`; `loss` is that in evaluation mode. A
case with fewer heads and neurons is cut with transformers' `prune_heads` and narrower linear layers, down to the same
shapes. Needs torch, transformers < 5, safetensors. Each attention that transformers has for a CPU is timed. Prints one
JSON object a case and attention, with the seconds of eight steps after two that do not count; the last of a case is the
faster one again, with `"fastest": true`.
"""

import json
import statistics
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from timing import seconds
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


def network(state, attention):
    """With the weights of a case, and as many heads and neurons a layer as it has."""
    model = BertForSequenceClassification(BertConfig(**CONFIG, num_labels=2, attn_implementation=attention))
    size = CONFIG["hidden_size"] // CONFIG["num_attention_heads"]
    for number, layer in enumerate(model.bert.encoder.layer):
        weight = lambda name: state[f"bert.encoder.layer.{number}.{name}.weight"]
        heads, neurons = len(weight("attention.self.query")) // size, len(weight("intermediate.dense"))
        # Which heads go does not matter: the weights are replaced.
        layer.attention.prune_heads(range(heads, CONFIG["num_attention_heads"]))
        layer.intermediate.dense = torch.nn.Linear(CONFIG["hidden_size"], neurons)
        layer.output.dense = torch.nn.Linear(neurons, CONFIG["hidden_size"])
    model.load_state_dict(state)
    return model


def time_case(path, attention):
    torch.manual_seed(0)
    state = load_file(path)
    ids, labels = state.pop("ids"), state.pop("labels")
    model = network(state, attention).eval()
    with torch.inference_mode():
        loss = model(input_ids=ids, labels=labels).loss.item()
    model.train()
    optimizer = torch.optim.AdamW(groups(model, 0.01), lr=1e-5, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()

    times = seconds(step, rounds=8, warm_up=2)
    return {"case": Path(path).stem, "attention": attention, "loss": loss, "seconds": times}


def main():
    for path in sys.argv[1:]:
        records = [time_case(path, attention) for attention in ("sdpa", "eager")]
        fastest = min(records, key=lambda record: statistics.median(record["seconds"]))
        for record in [*records, fastest | {"fastest": True}]:
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
