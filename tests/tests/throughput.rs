//! What moving bytes costs on each adapter. Run by hand, optimised and on an idle machine:
//! `cargo test --release -p peat-tests --test throughput -- --ignored --nocapture`.
#![cfg(target_os = "linux")]

#[path = "adapters/side.rs"]
#[allow(dead_code)]
mod side;

use std::time::Instant;

use bytes::Bytes;
use peat_node::proto::Lane;
use peat_node::proto::policy::Class;
use peat_node::transport::Outgoing;
use peat_node::transport::bench::Seen;
use side::{Kind, pair};

const FRAME: usize = 64 << 10;
const TOTAL: usize = 512 << 20;

/// Frames that the core lets be in flight on a fast path.
const AHEAD: usize = (4 << 20) / FRAME;

/// Processor time of this process so far, in ticks of 10 ms.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit_once(") ").expect("a name in parentheses").1.split(' ');
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// MB/s, and milliseconds of processor per MB, both sides together.
async fn measure(dialler: Kind, listener: Kind) -> (f64, f64) {
    let ((near, dialled), (far, accepted)) = pair(dialler, listener).await;
    let (began, before, frame) = (Instant::now(), ticks(), Bytes::from(vec![7; FRAME]));
    let lane = Lane::Class(Class::Bulk);
    let sender = tokio::spawn(async move {
        (0..AHEAD).for_each(|_| dialled.send(lane, frame.clone()));
        for _ in AHEAD..TOTAL / FRAME {
            assert!(matches!(near.next().await, Seen::Sent { .. }));
            dialled.send(lane, frame.clone());
        }
        (near, dialled)
    });
    let mut total = 0;
    while total < TOTAL {
        match far.next().await {
            Seen::Received { stream, bytes, .. } => {
                total += bytes.len();
                accepted.tell(Outgoing::Credit { stream, bytes: bytes.len() });
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    let (seconds, used) = (began.elapsed().as_secs_f64(), ticks() - before);
    drop(sender.await.expect("no panic"));
    let megabytes = TOTAL as f64 / 1e6;
    (megabytes / seconds, used as f64 * 10.0 / megabytes)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures this machine; wants to be optimised and alone"]
async fn plain_udp_costs_no_more_processor_than_iroh() {
    let mut least = std::collections::BTreeMap::new();
    for round in 0..3 {
        for kinds in
            [(Kind::Udp, Kind::Udp), (Kind::Iroh, Kind::Iroh), (Kind::Iroh, Kind::Udp), (Kind::Udp, Kind::Iroh)]
        {
            let (rate, cost) = measure(kinds.0, kinds.1).await;
            eprintln!("round {round}, {kinds:?}: {rate:.0} MB/s, {cost:.2} ms of processor per MB");
            let entry = least.entry(format!("{kinds:?}")).or_insert(cost);
            *entry = cost.min(*entry);
        }
    }
    assert!(least["(Udp, Udp)"] <= 1.2 * least["(Iroh, Iroh)"], "{least:?}");
}
