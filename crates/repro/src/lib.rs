//! Experiments, runs, claims and the report: the only room where methods meet.
