//! Attentive grouping for deep metric learning.
