//! What every method shares: networks, data, training, checkpoints, and the workload that hardware models price.

pub mod workload;
