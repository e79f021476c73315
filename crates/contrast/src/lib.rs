//! To be filled: see the README.
