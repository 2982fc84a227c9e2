//! Ordinary life logs no error. A file of its own, because the log is the process's.

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use common::{Side, bare, loopback, pair, peer, within};
use peat_iroh::Iroh;
use peat_node::proto::Wire;
use peat_node::transport::bench::{Bench, Seen};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics").write(line)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panics")).into_owned()
    }
}

#[test]
fn connecting_failing_closing_and_dropping_log_no_error() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(move || writer.clone());
    subscriber.init();

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (dialler, listener) = pair().await;
        let other = Side::new(3).await;
        other.dial(peer(4), listener.iroh.addrs().to_vec());
        assert!(matches!(other.next().await, Seen::DialFailed { .. }));
        within(dialler.iroh.close()).await;
        drop(listener.iroh);
        while !matches!(within(listener.bench.next()).await, Seen::Detached) {}
        drop(other.bench);
        within(other.iroh.close()).await;
    });
    let (port, bench) = Bench::new([5; 32], &Wire::ALL);
    drop(Iroh::spawn(port, loopback()).expect("loopback is there"));
    assert!(matches!(runtime.block_on(within(bench.next())), Seen::Detached));
    assert_eq!(log.text(), "");

    // The log does hear iroh, which complains about an endpoint that is dropped unclosed.
    runtime.block_on(async { drop(bare(6).await) });
    drop(runtime);
    assert!(log.text().contains("ERROR"), "{}", log.text());
}
