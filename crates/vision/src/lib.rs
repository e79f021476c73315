//! Face anti-spoofing, attentive grouping for metric learning, shift-invariance probes.
