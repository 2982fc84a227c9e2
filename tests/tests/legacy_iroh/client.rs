//! The client: one connection, its streams, and documents with a plain sync state each.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use iroh::endpoint::{Connection, RecvStream, presets};
use iroh::{Endpoint, EndpointAddr, SecretKey};
use peat_proto::Role;
use peat_tests::legacy::{Batch, Dialect, Field, Formation, Frame, Handshake, Library, Outcome, kind, read_heartbeat};
use tokio::sync::mpsc;

pub(crate) const ALPN: &[u8] = b"cap/automerge/1";

/// The longest frame that the client reads, in bytes.
const FRAME_MAX: usize = 1 << 20;

/// How membership is proven; `None` is not at all.
pub(crate) type Auth = Option<(Dialect, Formation)>;

/// Fails the test rather than hanging it.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(Duration::from_secs(30), future).await;
    outcome.expect("it should be done long before this")
}

/// An iroh endpoint on loopback, offline, that speaks the legacy wire and no other.
pub(crate) async fn endpoint(secret: [u8; 32]) -> Endpoint {
    let builder = Endpoint::builder(presets::Minimal)
        .clear_ip_transports()
        .alpns(vec![ALPN.to_vec()])
        .secret_key(SecretKey::from_bytes(&secret));
    let builder = builder.bind_addr((Ipv4Addr::LOCALHOST, 0)).expect("a valid address");
    builder.bind().await.expect("loopback is there")
}

/// Where an endpoint is reached.
pub(crate) fn reach(endpoint: &Endpoint) -> EndpointAddr {
    let sockets = endpoint.bound_sockets().into_iter();
    sockets.fold(EndpointAddr::new(endpoint.id()), EndpointAddr::with_ip_addr)
}

/// What the other side said on a stream of its own.
#[derive(Debug)]
pub(crate) enum Heard {
    Frame(Frame),
    Heartbeat(u64),
}

pub(crate) struct Client {
    _endpoint: Endpoint,
    pub(crate) connection: Connection,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl Client {
    /// Dials, proves itself, and listens.
    pub(crate) async fn dial(to: EndpointAddr, auth: &Auth) -> Self {
        let endpoint = endpoint(rand_secret()).await;
        let connection = within(endpoint.connect(to, ALPN)).await.expect("it answers");
        assert!(within(prove(&connection, Role::Dialled, auth)).await, "it knows the secret");
        Self::listen(endpoint, connection)
    }

    /// Waits to be dialled.
    pub(crate) async fn accept(endpoint: Endpoint, auth: &Auth) -> Self {
        let incoming = within(endpoint.accept()).await.expect("the endpoint is open");
        let connection = within(incoming.into_future()).await.expect("a connection");
        assert!(within(prove(&connection, Role::Accepted, auth)).await, "it knows the secret");
        Self::listen(endpoint, connection)
    }

    fn listen(endpoint: Endpoint, connection: Connection) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        tokio::spawn(streams(connection.clone(), sender));
        Self { _endpoint: endpoint, connection, heard }
    }

    /// A frame on a bidirectional stream of its own, whose other half is stopped.
    pub(crate) async fn send(&self, frame: &Frame) {
        self.write(&frame.encode()).await;
    }

    /// Any bytes on a stream of their own.
    pub(crate) async fn write(&self, bytes: &[u8]) {
        let (mut half, mut other) = within(self.connection.open_bi()).await.expect("a stream");
        // A receiver may stop the stream as soon as it has read what it wanted.
        let _ = within(half.write_all(bytes)).await;
        let _ = half.finish();
        let _ = other.stop(0_u32.into());
    }

    /// Any bytes on a stream of their own, and all that comes back on it.
    pub(crate) async fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut half, mut other) = within(self.connection.open_bi()).await.expect("a stream");
        let _ = within(half.write_all(bytes)).await;
        let _ = half.finish();
        within(other.read_to_end(FRAME_MAX)).await.expect("it ends")
    }

    pub(crate) async fn heartbeat(&self, unix_ms: u64) {
        let mut half = within(self.connection.open_uni()).await.expect("a stream");
        half.write_all(&peat_tests::legacy::heartbeat(unix_ms)).await.expect("it is read");
        half.finish().expect("it is open");
    }

    /// What is said next.
    pub(crate) async fn next(&mut self) -> Heard {
        within(self.heard.recv()).await.expect("the connection is up")
    }

    /// Exchanges documents until something holds at the other side.
    pub(crate) async fn exchange_until<L: Library>(&mut self, mine: &mut Replica<L>, holds: impl Future<Output = ()>) {
        let mut holds = std::pin::pin!(within(holds));
        loop {
            let heard = tokio::select! {
                () = &mut holds => return,
                heard = self.heard.recv() => heard.expect("the connection is up"),
            };
            self.take(mine, &heard).await;
        }
    }

    /// Exchanges documents until something holds on this side.
    pub(crate) async fn exchange<L: Library>(&mut self, mine: &mut Replica<L>, holds: impl Fn(&Replica<L>) -> bool) {
        while !holds(mine) {
            let heard = self.next().await;
            self.take(mine, &heard).await;
        }
    }

    async fn take<L: Library>(&self, mine: &mut Replica<L>, heard: &Heard) {
        if let Heard::Frame(frame) = heard {
            for answer in mine.take(frame) {
                self.send(&answer).await;
            }
        }
    }
}

/// Proves both sides' membership on the first bidirectional stream; false if it is refused.
pub(crate) async fn prove(connection: &Connection, role: Role, auth: &Auth) -> bool {
    let Some((dialect, formation)) = auth.clone() else { return true };
    let mut handshake = Handshake::new(dialect, role, formation, [9; 32], false);
    let (mut half, mut other) = match role {
        Role::Dialled => connection.open_bi().await.expect("a stream"),
        Role::Accepted => match connection.accept_bi().await {
            Ok(halves) => halves,
            Err(_) => return false,
        },
    };
    half.write_all(&handshake.opening().unwrap_or_default()).await.expect("the stream is open");
    let mut buffer = [0; 64];
    loop {
        let (bytes, fin) = match other.read(&mut buffer).await {
            Ok(Some(len)) => (&buffer[..len], false),
            Ok(None) => (&buffer[..0], true),
            Err(_) => return false,
        };
        let progress = handshake.receive(bytes, fin);
        let _ = half.write_all(&progress.write).await;
        if let Some(outcome) = progress.outcome {
            let _ = half.finish();
            return outcome == Outcome::Accepted;
        }
    }
}

/// Reads one frame from each stream that the other side opens, stops it and finishes the other half, as fielded peers do.
async fn streams(connection: Connection, heard: mpsc::UnboundedSender<Heard>) {
    loop {
        let heard = heard.clone();
        tokio::select! {
            accepted = connection.accept_bi() => {
                let Ok((mut half, stream)) = accepted else { return };
                tokio::spawn(async move {
                    if let Some(frame) = read(stream, |bytes| Frame::read(bytes).expect("a frame")).await {
                        let _ = heard.send(Heard::Frame(frame.0));
                    }
                    let _ = half.finish();
                });
            }
            accepted = connection.accept_uni() => {
                let Ok(stream) = accepted else { return };
                tokio::spawn(async move {
                    let time = read(stream, |bytes| read_heartbeat(bytes).expect("a heartbeat")).await;
                    let _ = heard.send(Heard::Heartbeat(time.expect("a whole heartbeat")));
                });
            }
        }
    }
}

async fn read<T>(mut stream: RecvStream, parse: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let mut read = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    while read.len() < FRAME_MAX {
        let len = stream.read(&mut buffer).await.ok().flatten()?;
        read.extend_from_slice(&buffer[..len]);
        if let Some(parsed) = parse(&read) {
            let _ = stream.stop(0_u32.into());
            return Some(parsed);
        }
    }
    None
}

/// Documents of the client.
pub(crate) struct Replica<L: Library> {
    pub(crate) docs: BTreeMap<String, L::Doc>,
    states: BTreeMap<String, L::State>,
    /// Everything that has come.
    pub(crate) frames: Vec<Frame>,
}

impl<L: Library> Replica<L> {
    pub(crate) fn new() -> Self {
        Self { docs: BTreeMap::new(), states: BTreeMap::new(), frames: Vec::new() }
    }

    pub(crate) fn put(&mut self, key: &str, value: i64) {
        let doc = self.docs.entry(key.to_owned()).or_insert_with(L::empty);
        L::put(doc, [7; 16], "v", Some(&Field::Int(value)));
    }

    pub(crate) fn value(&self, key: &str) -> Option<i64> {
        match L::fields(self.docs.get(key)?).get("v") {
            Some(Field::Int(value)) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn saved(&self, key: &str) -> Frame {
        Frame::new(kind::SNAPSHOT, key, L::save(&self.docs[key]))
    }

    /// The next sync message, if there is anything to say.
    pub(crate) fn delta(&mut self, key: &str) -> Option<Frame> {
        let doc = self.docs.entry(key.to_owned()).or_insert_with(L::empty);
        let message = L::generate(doc, self.states.entry(key.to_owned()).or_default())?;
        Some(Frame::new(kind::DELTA, key, message))
    }

    /// Applies what came; the answers, where there are any.
    fn take(&mut self, frame: &Frame) -> Vec<Frame> {
        if frame.kind == kind::BATCH {
            let batch = Batch::decode(&frame.payload, false).expect("a batch");
            return batch.entries.iter().flat_map(|entry| self.take(entry)).collect();
        }
        self.frames.push(frame.clone());
        match frame.kind {
            kind::DELTA => {
                let doc = self.docs.entry(frame.key.clone()).or_insert_with(L::empty);
                let state = self.states.entry(frame.key.clone()).or_default();
                L::receive(doc, state, &frame.payload).expect("a sync message");
                self.delta(&frame.key).into_iter().collect()
            }
            kind::SNAPSHOT => {
                let saved = L::load(&frame.payload).expect("a document");
                let doc = self.docs.entry(frame.key.clone()).or_insert_with(L::empty);
                L::merge(doc, &saved).expect("it merges");
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

fn rand_secret() -> [u8; 32] {
    SecretKey::generate().to_bytes()
}
