//! Computations too long for the caller's thread: pure, and run wherever the driver likes.

/// A computation that the core wants done by a worker.
#[derive(Debug)]
pub struct Job;

/// The result of a [`Job`].
#[derive(Debug)]
pub struct Done;

impl Job {
    /// Does the work, on any thread, in any order relative to other jobs.
    #[must_use]
    pub fn run(self) -> Done {
        Done
    }
}
