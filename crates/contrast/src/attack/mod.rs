//! Attacks on classifiers, and what their outcome says.
