//! How far a fetch is: a bar on a terminal, a line for each backup elsewhere. Always on standard error.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::show::{self, text};

/// What has arrived, of what must.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(total_bytes: u64) -> Self {
        let target =
            if console::Term::stderr().is_term() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target);
        let template = "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// A backup begins.
    pub(crate) fn step(&self, number: u32, of: usize, name: &str, node: &str, bytes: u64) {
        if self.bar.is_hidden() {
            show::beside(&format!("{number}/{of} {name} from node {node}, {}", text::size(bytes)));
        } else {
            self.bar.set_message(format!("{number}/{of} {name}"));
        }
    }

    /// Bytes arrived, or were there already.
    pub(crate) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Bytes have to come again.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.bar.dec(bytes);
    }

    /// Something to know, while it goes on.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| show::beside(text));
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
