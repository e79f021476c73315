//! Face anti-spoofing from physical cues.
