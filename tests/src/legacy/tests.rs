//! The model by itself.

use std::time::Duration;

use bytes::Bytes;
use peat_proto::{ConnId, Now, PeerId, Role, StreamId, Time};

use super::*;

mod connections;
mod deletion;
mod documents;
mod reconciliation;
mod vectors;
mod warts;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The time at which the vectors with a fixed time were made, in Unix milliseconds.
const EPOCH: u64 = 1_700_000_000_000;

fn id(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn now(millis: u64) -> Now {
    Now { mono: Time::from_micros(millis * 1_000), unix_ms: EPOCH + millis }
}

fn text(value: &str) -> Field {
    Field::Text(value.to_owned())
}

/// One peer, and whoever it is connected to.
struct Bench<L: Library> {
    peer: LegacyPeer<L>,
    now: Now,
    streams: u64,
}

impl<L: Library> Bench<L> {
    const CONN: ConnId = ConnId(7);

    /// A peer that has accepted a connection and reads its streams.
    fn new(config: Config) -> Self {
        let mut peer = LegacyPeer::new(id(2), config, 1, now(0));
        peer.handle(now(0), Input::Connected { conn: Self::CONN, peer: id(1), role: Role::Accepted });
        let mut bench = Self { peer, now: now(0), streams: 0 };
        bench.drain();
        bench
    }

    /// A bidirectional stream with these bytes arrives.
    fn feed(&mut self, bytes: &[u8], fin: bool) -> StreamId {
        let stream = StreamId(4 * self.streams);
        self.streams += 1;
        self.feed_on(stream, bytes, fin);
        stream
    }

    fn feed_on(&mut self, stream: StreamId, bytes: &[u8], fin: bool) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.peer.handle(self.now, Input::Received { conn: Self::CONN, stream, bytes, fin });
    }

    fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.peer.poll()).collect()
    }
}

/// The frame on a stream that was opened for it.
fn opened(output: &Output) -> Option<Frame> {
    let Output::Open { bytes, fin: true, stop: true, .. } = output else { return None };
    Frame::read(bytes).ok().flatten().map(|(frame, _)| frame)
}

/// Two connected peers, the first of which dialled. It reads what comes back: a node binary that dials is a subject of its
/// own.
fn pair(mut first: Config, second: Config) -> Mesh {
    first.warts.deaf_dialler = false;
    let mut mesh = Mesh::new(1);
    mesh.join(Member::v07(id(1), first, 1, mesh.clock()));
    mesh.join(Member::v12(id(2), second, 1, mesh.clock()));
    mesh.connect(0, 1);
    mesh
}

/// The frames of one type that one member has opened a stream for, since a position in the log.
fn frames(mesh: &Mesh, from: usize, kind: u8, since: usize) -> Vec<Frame> {
    let said =
        mesh.said[since..].iter().filter(|said| said.from == from && said.opens && said.stream.is_bidirectional());
    said.filter_map(|said| Frame::read(&said.bytes).ok().flatten())
        .map(|(frame, _)| frame)
        .filter(|it| it.kind == kind)
        .collect()
}
