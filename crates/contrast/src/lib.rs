//! Adversarial contrastive learning, and attacks one can trust.
