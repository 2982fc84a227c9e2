//! A result on its way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use flume::r#async::RecvFut;

/// A result on its way: await it in any runtime, or block the thread on [`Pending::wait`].
///
/// What was asked for happens whether or not this is awaited; dropping it only forgets the answer. Where the answer is
/// that an application's closure panicked, waiting panics with the same payload, on the caller's side.
#[must_use = "an unanswered write is not known to be durable"]
pub struct Pending<T: 'static> {
    answer: flume::Receiver<thread::Result<T>>,
    polled: Option<RecvFut<'static, thread::Result<T>>>,
    closed: fn() -> T,
}

/// The other end: answers once. Dropping it unanswered says that the node has closed.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    answer: flume::Sender<thread::Result<T>>,
    permit: Option<Permit>,
}

/// Room for the requests of an application that are under way.
#[derive(Debug)]
pub(crate) struct Permits {
    /// Holds one token for each request under way.
    taken: flume::Sender<()>,
    given: flume::Receiver<()>,
}

/// Room for one request; dropping it makes room for the next.
#[derive(Debug)]
pub(crate) struct Permit(flume::Receiver<()>);

/// A pair of ends; `closed` makes the answer for the case that the node stops first.
pub(crate) fn pending<T: 'static>(closed: fn() -> T) -> (Reply<T>, Pending<T>) {
    let (reply, answer) = flume::bounded(1);
    let pending = Pending { answer, polled: None, closed };
    let reply = Reply { answer: reply, permit: None };
    (reply, pending)
}

impl<T> Reply<T> {
    /// Keeps the permit until the answer is given or dropped.
    pub(crate) fn holding(mut self, permit: Permit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// Whether somebody still waits for the answer.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.answer.is_disconnected()
    }

    pub(crate) fn send(self, answer: T) {
        self.finish(Ok(answer));
    }

    /// Answers with a value, or with the payload of a panic that the caller's closure raised.
    pub(crate) fn finish(self, outcome: thread::Result<T>) {
        // Nobody listens any more: the caller has dropped its end, which is its right.
        let _ = self.answer.try_send(outcome);
    }
}

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        let (taken, given) = flume::bounded(count);
        Self { taken, given }
    }

    /// Blocks while as many requests as there are permits are under way.
    pub(crate) fn take(&self) -> Permit {
        // Never disconnected: `self` holds the other end, too.
        let _ = self.taken.send(());
        Permit(self.given.clone())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

impl<T: 'static> Pending<T> {
    /// Blocks this thread until the answer is there. Not for closures that run inside the node, which would wait
    /// for themselves.
    ///
    /// # Panics
    /// With the payload of the panic that the application's closure raised.
    pub fn wait(self) -> T {
        let received = self.answer.recv().ok();
        settle(received, self.closed)
    }
}

impl<T: 'static> Future for Pending<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        let answer = &this.answer;
        let future = this.polled.get_or_insert_with(|| answer.clone().into_recv_async());
        let received = ready!(Pin::new(future).poll(cx)).ok();
        Poll::Ready(settle(received, this.closed))
    }
}

impl<T: 'static> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

fn settle<T>(received: Option<thread::Result<T>>, closed: fn() -> T) -> T {
    match received {
        Some(Ok(answer)) => answer,
        Some(Err(payload)) => std::panic::resume_unwind(payload),
        None => closed(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{DocId, Node, Options};

    #[test]
    fn an_answer_arrives_by_waiting_and_by_awaiting() {
        let (reply, answer) = pending(|| 0);
        reply.send(7);
        assert_eq!(answer.wait(), 7);

        let (reply, answer) = pending(|| 0);
        let answering = thread::spawn(move || reply.send(8));
        assert_eq!(pollster::block_on(answer), 8);
        answering.join().expect("answered");
    }

    #[test]
    fn a_node_that_stops_answers_closed() {
        let (reply, answer) = pending(|| "closed");
        drop(reply);
        assert_eq!(answer.wait(), "closed");
        let (reply, answer) = pending(|| "closed");
        drop(reply);
        assert_eq!(pollster::block_on(answer), "closed");
    }

    #[test]
    fn permits_run_out_and_come_back_with_the_answer() {
        let permits = Permits::new(1);
        let (reply, answer) = pending(|| ());
        let reply = reply.holding(permits.take());
        assert!(permits.taken.is_full());
        reply.send(());
        assert!(permits.taken.is_empty());
        answer.wait();
        let (reply, _) = pending(|| ());
        drop(reply.holding(permits.take()));
        drop(permits.take());
    }

    #[test]
    fn of_many_requests_that_wait_at_once_none_is_lost() {
        let node = Node::in_memory(Options::default());
        let doc = DocId::new("notes:1").expect("a valid name");
        let (go_on, wait) = mpsc::channel::<()>();
        // The loop stands still until everything waits for it.
        let edit = node.edit(&doc, move |_| Ok::<_, String>(wait.recv().is_ok()));
        let count = Node::MAX_REQUESTS - 1;
        let waiting: Vec<_> = (0..count).map(|_| node.stats()).collect();
        go_on.send(()).expect("the edit waits");
        assert!(edit.wait().is_ok());
        let answered = waiting.into_iter().filter_map(Pending::wait).count();
        assert_eq!(answered, count);
    }

    #[test]
    fn a_panic_is_raised_again_where_the_answer_is_awaited() {
        let (reply, answer) = pending(|| ());
        reply.finish(Err(Box::new("boom")));
        let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| answer.wait())).expect_err("panics");
        assert_eq!(payload.downcast_ref(), Some(&"boom"));
    }
}
