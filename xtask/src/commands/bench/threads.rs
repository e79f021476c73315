//! As many threads for either side.

use std::num::NonZeroUsize;
use std::process::Command;
use std::thread;

/// What the libraries of both sides read: OpenMP's, MKL's, OpenBLAS's and rayon's.
const VARIABLES: [&str; 4] = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"];

/// As many as were asked for, else as the machine runs at once.
pub(super) fn threads(asked: Option<NonZeroUsize>) -> NonZeroUsize {
    asked.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

/// Has the command use so many.
pub(super) fn give(command: &mut Command, threads: NonZeroUsize) {
    command.envs(VARIABLES.map(|variable| (variable, threads.to_string())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_is_told_the_same_number() {
        let mut command = Command::new("true");
        give(&mut command, NonZeroUsize::new(3).unwrap());
        let told: Vec<_> = command.get_envs().collect();
        assert_eq!(told.len(), 4);
        assert!(told.iter().all(|(name, value)| {
            name.to_str().unwrap().ends_with("_NUM_THREADS") && value.unwrap().to_str() == Some("3")
        }));
    }
}
