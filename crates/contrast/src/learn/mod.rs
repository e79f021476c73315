//! Contrastive pre-training, robust pre-training and fine-tuning.
