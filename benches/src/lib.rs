//! Criterion benches live in `benches/`; scripts against Python peers in `peers/`.
