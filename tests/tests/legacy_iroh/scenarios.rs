//! What anybody must be able to do who speaks the legacy wire.

use iroh::EndpointAddr;
use iroh::endpoint::ConnectionError;
use peat_proto::Role;
use peat_tests::legacy::{
    Batch, Dialect, Direction, Formation, Frame, Library, NEGENTROPY_KEY, TTL, Tombstone, V07, V12, decode_all, kind,
};

use super::client::{ALPN, Auth, Client, Heard, Replica, endpoint, prove, reach, within};

const UNIX_MS: u64 = 1_700_000_000_000;

/// Who is put to the test. Documents have one field, `v`.
pub(crate) trait Subject {
    fn addr(&self) -> EndpointAddr;
    /// Its application writes.
    async fn put(&self, key: &str, value: i64);
    /// Its application deletes, with a marker.
    async fn delete(&self, key: &str);
    /// Waits until a document has this value there, or none.
    async fn until(&self, key: &str, value: Option<i64>);
    /// It dials somebody.
    async fn dial(&self, client: EndpointAddr);
}

/// What every speaker of the legacy wire must do, one after the other, with a node that proves itself in this dialect.
pub(crate) async fn a_day(subject: &impl Subject, auth: &Auth, dialect: Dialect) {
    documents(subject, auth).await;
    snapshots(subject, auth).await;
    batches(subject, auth).await;
    deletion(subject, auth).await;
    bad_frames(subject, auth).await;
    heartbeats(subject, auth).await;
    strangers(subject, dialect).await;
}

/// Full-history documents go both ways as deltas, with either version of Automerge.
pub(crate) async fn documents(subject: &impl Subject, auth: &Auth) {
    async fn with<L: Library>(subject: &impl Subject, auth: &Auth, name: &str) {
        let mut client = Client::dial(subject.addr(), auth).await;
        let mut mine = Replica::<L>::new();
        let key = format!("docs:{name}");
        mine.put(&key, 1);
        let opening = mine.delta(&key).expect("news");
        client.send(&opening).await;
        client.exchange_until(&mut mine, subject.until(&key, Some(1))).await;

        subject.put(&key, 2).await;
        client.exchange(&mut mine, |mine| mine.value(&key) == Some(2)).await;

        let theirs = format!("docs:theirs-{name}");
        subject.put(&theirs, 3).await;
        client.exchange(&mut mine, |mine| mine.value(&theirs) == Some(3)).await;
        mine.put(&theirs, 4);
        if let Some(news) = mine.delta(&theirs) {
            client.send(&news).await;
        }
        client.exchange_until(&mut mine, subject.until(&theirs, Some(4))).await;
    }
    with::<V07>(subject, auth, "seven").await;
    with::<V12>(subject, auth, "twelve").await;
}

/// Latest-only documents go both ways whole.
pub(crate) async fn snapshots(subject: &impl Subject, auth: &Auth) {
    let mut client = Client::dial(subject.addr(), auth).await;
    let mut mine = Replica::<V07>::new();
    mine.put("tracks:mine", 1);
    client.send(&mine.saved("tracks:mine")).await;
    client.exchange_until(&mut mine, subject.until("tracks:mine", Some(1))).await;
    subject.put("tracks:theirs", 2).await;
    client.exchange(&mut mine, |mine| mine.value("tracks:theirs") == Some(2)).await;
    let came = mine.frames.iter().filter(|frame| frame.key == "tracks:theirs").all(|frame| frame.kind != kind::DELTA);
    assert!(came, "a latest-only document comes whole");
}

/// A batch of a delta, a snapshot and a marker is applied.
pub(crate) async fn batches(subject: &impl Subject, auth: &Auth) {
    let mut client = Client::dial(subject.addr(), auth).await;
    let mut mine = Replica::<V12>::new();
    subject.put("nodes:doomed", 1).await;
    for key in ["docs:batched", "tracks:batched"] {
        mine.put(key, 5);
    }
    let opening = mine.delta("docs:batched").expect("news");
    let entries = vec![opening, marker("nodes", "doomed").frame(), mine.saved("tracks:batched")];
    let batch = Batch { id: 77, created_ms: UNIX_MS, ttl: TTL, entries };
    client.send(&batch.frame()).await;
    client.exchange_until(&mut mine, subject.until("docs:batched", Some(5))).await;
    subject.until("tracks:batched", Some(5)).await;
    subject.until("nodes:doomed", None).await;
}

/// Markers go both ways, and hold.
pub(crate) async fn deletion(subject: &impl Subject, auth: &Auth) {
    let mut client = Client::dial(subject.addr(), auth).await;
    let mut mine = Replica::<V07>::new();
    subject.put("nodes:one", 1).await;
    subject.put("nodes:two", 1).await;
    client.send(&marker("nodes", "one").frame()).await;
    subject.until("nodes:one", None).await;

    // What comes for it now is dropped, and what comes behind that is not.
    mine.put("nodes:one", 9);
    mine.put("nodes:three", 9);
    client.send(&mine.saved("nodes:one")).await;
    client.send(&mine.saved("nodes:three")).await;
    subject.until("nodes:three", Some(9)).await;
    subject.until("nodes:one", None).await;

    subject.delete("nodes:two").await;
    let deleted = |frame: &Frame| match frame.kind {
        kind::TOMBSTONE => vec![Tombstone::decode(&frame.payload).expect("a marker")],
        kind::TOMBSTONE_BATCH => decode_all(&frame.payload).expect("markers"),
        _ => Vec::new(),
    };
    let is_two = |it: &Tombstone| it.id == "two" && it.direction == Direction::Bidirectional;
    client.exchange(&mut mine, |mine| mine.frames.iter().flat_map(deleted).any(|it| is_two(&it))).await;
}

/// Bytes that nobody should send cost their stream and nothing else.
pub(crate) async fn bad_frames(subject: &impl Subject, auth: &Auth) {
    let mut client = Client::dial(subject.addr(), auth).await;
    let mut mine = Replica::<V07>::new();
    for kind in [0x02, 0x03, 0x06, 0x0a, 0x7f] {
        client.send(&Frame::new(kind, "docs:odd", vec![1, 2, 3])).await;
    }
    client.write(b"").await;
    client.write(&[0, 3, b'd']).await;
    client.send(&Frame::new(kind::DELTA, "docs:odd", vec![0xff; 20])).await;
    client.send(&Frame::new(kind::SNAPSHOT, "docs:odd", vec![0xff; 20])).await;
    client.send(&Frame::new(kind::TOMBSTONE, "docs:odd", vec![0xff; 20])).await;
    client.send(&Frame::new(kind::NEGENTROPY, NEGENTROPY_KEY, vec![0xff; 20])).await;
    mine.put("tracks:after", 1);
    client.send(&mine.saved("tracks:after")).await;
    client.exchange_until(&mut mine, subject.until("tracks:after", Some(1))).await;
    assert_eq!(
        client.ask(&mine.saved("tracks:after").encode()).await,
        b"",
        "nothing comes back on a document's stream"
    );
}

/// Heartbeats go both ways, each on a unidirectional stream of its own.
pub(crate) async fn heartbeats(subject: &impl Subject, auth: &Auth) {
    let mut client = Client::dial(subject.addr(), auth).await;
    for beat in 0..120 {
        client.heartbeat(UNIX_MS + beat).await;
    }
    let time = loop {
        if let Heard::Heartbeat(time) = client.next().await {
            break time;
        }
    };
    assert!(time > UNIX_MS, "{time}");
}

/// More frames than streams may be open at once: every stream comes to its end.
pub(crate) async fn many_streams(subject: &impl Subject, auth: &Auth) {
    let mut client = Client::dial(subject.addr(), auth).await;
    let mut mine = Replica::<V12>::new();
    for value in 0..300 {
        mine.put("tracks:many", value);
        client.send(&mine.saved("tracks:many")).await;
    }
    client.exchange_until(&mut mine, subject.until("tracks:many", Some(299))).await;
}

/// Who does not know the secret is told so by close code 1, and has moved nothing.
pub(crate) async fn strangers(subject: &impl Subject, dialect: Dialect) {
    for formation in [Formation::new("peat", &[0; 32]), Formation::new("elsewhere", &[0; 32])] {
        let endpoint = endpoint([3; 32]).await;
        let connection = within(endpoint.connect(subject.addr(), ALPN)).await.expect("it answers");
        assert!(!within(prove(&connection, Role::Dialled, &Some((dialect, formation)))).await);
        // A connector that finds another name in the challenge gives up by itself.
        connection.close(1_u32.into(), b"");
        if let ConnectionError::ApplicationClosed(close) = within(connection.closed()).await {
            assert_eq!(close.error_code, 1_u32.into());
        }
        endpoint.close().await;
    }
}

/// The same when it is the subject that dials: both sides open streams.
pub(crate) async fn being_dialled(subject: &impl Subject, auth: &Auth) {
    let endpoint = endpoint([4; 32]).await;
    subject.put("docs:theirs", 1).await;
    subject.dial(reach(&endpoint)).await;
    let mut client = Client::accept(endpoint, auth).await;
    let mut mine = Replica::<V07>::new();
    client.exchange(&mut mine, |mine| mine.value("docs:theirs") == Some(1)).await;
    mine.put("tracks:mine", 2);
    client.send(&mine.saved("tracks:mine")).await;
    client.exchange_until(&mut mine, subject.until("tracks:mine", Some(2))).await;
}

fn marker(collection: &str, id: &str) -> Tombstone {
    Tombstone {
        collection: collection.to_owned(),
        id: id.to_owned(),
        deleted_at_ms: UNIX_MS,
        lamport: 1,
        by: "client".to_owned(),
        reason: None,
        direction: Direction::Bidirectional,
    }
}
