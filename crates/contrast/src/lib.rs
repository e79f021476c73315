//! Adversarial contrastive learning ([`learn`]), and attacks one can trust ([`attack`]).
//!
//! | module | what it does |
//! |---|---|
//! | [`attack`] | how robust is a classifier? Attacks, an ensemble of them, a report that looks for masked gradients, certificates |
//! | [`learn`] | how does it become robust without labels? Contrastive pre-training against an adversary, robust fine-tuning |
//!
//! Both take any tch model; the first needs nothing of the second.

pub mod attack;
pub mod learn;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
