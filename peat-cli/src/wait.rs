//! Waiting on a future from a plain thread, until a deadline.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// The future's output, or `None` if the deadline came first.
pub(crate) fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        thread::park_timeout(left);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_ready_future_is_taken_even_after_the_deadline() {
        assert_eq!(until(Instant::now(), std::future::ready(7)), Some(7));
    }

    #[test]
    fn a_future_that_never_comes_ends_at_the_deadline() {
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(until(deadline, std::future::pending::<()>()), None);
        assert!(Instant::now() >= deadline);
    }
}
