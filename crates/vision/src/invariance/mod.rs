//! Measuring and showing the shift invariance of CNN features.
