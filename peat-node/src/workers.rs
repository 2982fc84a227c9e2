//! Threads for computations that would hold up the loop.

use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use peat_proto::Job;

use crate::inbox::{Inbox, Message};

/// Most workers; fewer on a machine with fewer processors. Loading a large document is bound by memory, not by numbers.
const MAX_WORKERS: usize = 4;

/// A few threads that run jobs in the order in which they come. Dropping it waits for the jobs under way.
pub(crate) struct Workers {
    /// Not bounded as a channel: the core has at most one job per loaded document.
    jobs: Option<flume::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(inbox: &Inbox) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let (jobs, queue) = flume::unbounded::<Job>();
        let mut workers = Self { jobs: Some(jobs), threads: Vec::new() };
        for _ in 0..count.min(MAX_WORKERS) {
            let (queue, inbox) = (queue.clone(), inbox.clone());
            let thread = thread::Builder::new()
                .name("peat-worker".to_owned())
                .spawn(move || queue.iter().for_each(|job| inbox.send(run(job))))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    pub(crate) fn run(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The workers end only after this sender is dropped.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A job's panic was caught and reported.
            let _ = thread.join();
        }
    }
}

fn run(job: Job) -> Message {
    match catch_unwind(AssertUnwindSafe(|| job.run())) {
        Ok(done) => Message::Worked(done),
        Err(_) => Message::Lost,
    }
}
