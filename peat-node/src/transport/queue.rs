//! Queues between threads: any number of senders, and one receiver, which waits as a task or as a thread.
//!
//! They have no bound of their own; what goes into them is bounded by what it is about. No lock is held while the receiver
//! is woken. Where one is, it wakes up on the sender's processor only to wait for that lock: twice the switches of
//! context for each message, of which a fast connection has one every 64 KiB and direction.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};

/// The sending end. Never blocks.
pub struct Sender<T>(UnboundedSender<T>);

/// The receiving end. When it is dropped, so is what has not been taken, and nothing more gets in.
pub struct Receiver<T>(UnboundedReceiver<T>);

/// The receiver is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody receives any more")]
pub struct Closed;

/// A new queue.
#[must_use]
pub fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = unbounded();
    (Sender(sender), Receiver(receiver))
}

impl<T> Sender<T> {
    /// Puts something in; drops it where nobody receives any more.
    ///
    /// # Errors
    /// [`Closed`] if so.
    pub fn send(&self, value: T) -> Result<(), Closed> {
        self.0.unbounded_send(value).map_err(|_| Closed)
    }
}

impl<T> Receiver<T> {
    /// What is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }

    /// Waits as a task; `None` once all senders are gone and everything is taken.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        pin!(self.0.recv()).poll(cx).map(Result::ok)
    }

    /// Waits as a thread, at most until then; `None` if nothing came, or once all senders are gone and everything is taken.
    pub fn recv_until(&mut self, deadline: Option<Instant>) -> Option<T> {
        let waker = Waker::from(Arc::new(Parked(thread::current())));
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(next) = self.poll_recv(&mut cx) {
                return next;
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(left) if left.is_zero() => return None,
                Some(left) => thread::park_timeout(left),
            }
        }
    }
}

/// A thread that waits.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_sent_comes_out_in_order_and_then_the_end() {
        let (sender, mut receiver) = queue();
        assert_eq!(receiver.try_recv(), None);
        (0..3).for_each(|n| sender.send(n).expect("open"));
        drop(sender);
        assert_eq!(receiver.try_recv(), Some(0));
        assert_eq!([receiver.recv_until(None), receiver.recv_until(None)], [Some(1), Some(2)]);
        assert_eq!(receiver.recv_until(None), None);
    }

    #[test]
    fn a_waiting_thread_is_woken_by_what_comes_or_by_its_deadline() {
        let (sender, mut receiver) = queue();
        let sending = thread::spawn(move || (0..1000).for_each(|n| sender.send(n).expect("open")));
        (0..1000).for_each(|n| assert_eq!(receiver.recv_until(None), Some(n)));
        sending.join().expect("no panic");
        let (_sender, mut receiver) = queue::<()>();
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(receiver.recv_until(Some(deadline)), None);
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn what_is_not_taken_goes_with_the_receiver() {
        let (sender, receiver) = queue();
        let content = Arc::new(());
        sender.send(content.clone()).expect("open");
        drop(receiver);
        assert_eq!(Arc::strong_count(&content), 1);
        assert_eq!(sender.send(content.clone()), Err(Closed));
        assert_eq!(Arc::strong_count(&content), 1);
    }
}
