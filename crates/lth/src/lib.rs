//! Lottery tickets: masks, pruning criteria, rewinding, knowledge-distillation tickets.
