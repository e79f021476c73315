//! What a network costs on an accelerator: cycles, traffic, energy, latency. No libtorch.
