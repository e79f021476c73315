//! Adversarial contrastive learning ([`learn`]), and attacks one can trust ([`attack`]).

pub mod attack;
pub mod learn;
