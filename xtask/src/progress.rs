//! One line that says what is going on: a bar on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Progress of one step. On a terminal it is a bar (or a spinner when the length is unknown); in a log it is one
/// line when the step begins and one when it is done.
pub(crate) struct Progress {
    bar: ProgressBar,
    what: String,
    begun: Instant,
}

impl Progress {
    /// A step that handles `total` bytes.
    pub(crate) fn bytes(what: &str, total: u64) -> Self {
        Self::begin(what, ProgressBar::new(total), "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
    }

    /// A step that handles bytes nobody has counted beforehand.
    pub(crate) fn uncounted(what: &str) -> Self {
        Self::begin(what, ProgressBar::no_length(), "{spinner} {msg} {bytes} {elapsed}")
    }

    fn begin(what: &str, bar: ProgressBar, template: &str) -> Self {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        if bar.is_hidden() {
            eprintln!("{what} …");
        } else {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, what: what.to_owned(), begun: Instant::now() }
    }

    pub(crate) fn set(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
        eprintln!("{}: done in {:.1} s", self.what, self.begun.elapsed().as_secs_f64());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
