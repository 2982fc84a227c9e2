//! Bad input on long-lived lanes: what each fault costs, and that it costs nothing else.

#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "common/heap.rs"]
mod heap;

use std::time::Duration;

use bytes::Bytes;
use heap::{Counting, peak};
use peat_proto::store::{Entry, StoreCommand, Stored};
use peat_proto::wire::{BatchBuilder, Body, Delta, Entry as BatchEntry, Hello, Label, Payload, Summary, encode_frame};
use peat_proto::{
    Boot, CloseCode, Config, ConnId, DocId, Input, Link, Node, Now, Output, PeerId, Role, StreamId, Time, Wire,
    automerge,
};

#[global_allocator]
static HEAP: Counting = Counting;

const CONN: ConnId = ConnId(1);
const LANE: StreamId = StreamId::new(7, Role::Dialled, false);
const CONTROL: StreamId = StreamId::new(0, Role::Dialled, false);

/// One node, and a peer that the test plays.
struct Victim {
    node: Node,
    now: Now,
    closed: Option<CloseCode>,
    stopped: Vec<(StreamId, CloseCode)>,
    replies: Vec<(StreamId, Bytes, bool)>,
}

impl Victim {
    /// A node that has just been dialled by somebody.
    fn dialled() -> Self {
        let mut config = Config::default();
        config.admission.open = true;
        let now = Now { mono: Time::ZERO, unix_ms: 1_700_000_000_000 };
        let boot = Boot { store: [1; 16], number: 1 };
        let mut node = Node::new(config, PeerId([1; 32]), boot, [1; 32], Vec::<Entry>::new(), now);
        let link = Link { role: Role::Accepted, wire: Wire::V1, reliable: true, binding: [0; 32], rtt: None };
        node.handle(now, Input::Connected { conn: CONN, peer: PeerId([2; 32]), link });
        let mut victim = Self { node, now, closed: None, stopped: Vec::new(), replies: Vec::new() };
        victim.drain();
        victim
    }

    /// A node over which documents flow.
    fn serving() -> Self {
        let mut victim = Self::dialled();
        victim.feed(CONTROL, &Hello { boot: 1, invitation: None }.frame(), false);
        victim.feed(CONTROL, &Summary { documents: 0, digest: [0; 32], seen: None }.frame(), false);
        assert_eq!(victim.closed, None);
        victim
    }

    fn feed(&mut self, stream: StreamId, bytes: &Bytes, fin: bool) {
        let input = Input::Received { conn: CONN, stream, bytes: bytes.clone(), fin };
        self.node.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.node.poll() {
            match output {
                Output::Disconnect { code, .. } => self.closed = Some(code),
                Output::Send { conn, frame, .. } => {
                    self.node.handle(self.now, Input::Sent { conn, bytes: frame.len() });
                }
                Output::Store(StoreCommand::Write(batch)) => {
                    self.node.handle(self.now, Input::Stored(Stored::Durable { seq: batch.seq }));
                }
                Output::Store(StoreCommand::Load { .. }) => panic!("everything fits into the cache"),
                Output::Work(job) => self.node.handle(self.now, Input::Worked(job.run())),
                Output::StopStream { stream, code, .. } => self.stopped.push((stream, code)),
                Output::Reply { stream, bytes, fin, .. } => self.replies.push((stream, bytes, fin)),
                Output::Event(_) | Output::Dial { .. } | Output::Consumed { .. } => {}
            }
        }
    }

    /// That the lane still carries good frames.
    fn assert_unharmed(&mut self, stream: StreamId) {
        let name = format!("notes:after-{}", self.node.stats().documents);
        self.feed(stream, &good(&name), false);
        assert_eq!(self.closed, None);
        assert!(self.node.contains(&DocId::new(&name).expect("valid")), "a good frame after it is applied");
    }
}

/// A delta with one change for a document of its own.
fn good(name: &str) -> Bytes {
    delta(&DocId::new(name).expect("valid"), vec![change()])
}

fn change() -> Bytes {
    use automerge::transaction::Transactable;
    #[allow(clippy::disallowed_methods, reason = "the actor does not matter here")]
    let mut doc = automerge::Automerge::new();
    let mut tx = doc.transaction();
    tx.put(automerge::ROOT, "x", 1).expect("an edit");
    tx.commit();
    doc.save_after(&[]).into()
}

fn delta(doc: &DocId, changes: Vec<Bytes>) -> Bytes {
    let payload = Delta { changes, ..Delta::default() }.encode();
    encode_frame(Label::Delta(doc), Payload::new(&payload).expect("small"))
}

/// A frame made by hand, right or wrong.
fn raw(key: &[u8], code: u8, announced: u32, payload: &[u8]) -> Bytes {
    let mut out = u16::try_from(key.len()).expect("short").to_be_bytes().to_vec();
    out.extend(key);
    out.push(code);
    out.extend(announced.to_be_bytes());
    out.extend(payload);
    out.into()
}

#[test]
fn a_frame_cut_at_any_byte_costs_its_stream_and_nothing_else() {
    let frame = good("notes:cut");
    let mut victim = Victim::serving();
    for cut in 1..frame.len() {
        let stream = StreamId::new(100 + cut as u64, Role::Dialled, false);
        victim.feed(stream, &frame.slice(..cut), true);
        assert_eq!(victim.closed, None, "cut at {cut}");
        assert!(!victim.node.contains(&DocId::new("notes:cut").expect("valid")), "cut at {cut}");
    }
    assert_eq!(victim.node.stats().truncated, frame.len() as u64 - 1);
    assert_eq!(victim.node.stats().receive_bytes, 0, "what was begun is dropped");
    victim.assert_unharmed(LANE);
}

#[test]
fn limit_1_an_impossible_length_is_refused_at_its_header_without_memory() {
    for code in [0x00, 0x01, 0x07, 0x40, 0x41] {
        let mut victim = Victim::serving();
        let ((), held) = peak(|| victim.feed(LANE, &raw(b"notes:1", code, u32::MAX, &[]), false));
        assert_eq!(victim.closed, Some(CloseCode::TooLarge), "type {code:#04x}");
        assert!(held < 1 << 20, "type {code:#04x} held {held} bytes");
    }
}

#[test]
fn limit_2_an_impossible_count_costs_its_batch_without_memory() {
    let mut payload = vec![0; 17];
    payload.extend(u32::MAX.to_be_bytes());
    let mut victim = Victim::serving();
    let ((), held) = peak(|| victim.feed(LANE, &raw(b"batch", 0x07, 21, &payload), false));
    assert!(held < 1 << 20, "held {held} bytes");
    assert_eq!(victim.node.stats().refused, 1);
    victim.assert_unharmed(LANE);
}

#[test]
fn limit_5_a_bad_entry_costs_itself_and_not_its_neighbours() {
    let entry = |name: &str| BatchEntry::Document {
        doc: DocId::new(name).expect("valid"),
        body: Body::Delta(Delta { changes: vec![change()], ..Delta::default() }.encode()),
    };
    let mut batch = BatchBuilder::new(1, 0, 5, 4096);
    assert!(batch.push(&entry("notes:a")) && batch.push(&entry("notes:b")) && batch.push(&entry("notes:c")));
    let mut bytes = batch.frame().to_vec();
    let at = bytes.windows(7).position(|window| window == b"notes:b").expect("the middle key");
    bytes[at] = 0xff;
    let mut victim = Victim::serving();
    victim.feed(LANE, &bytes.into(), false);
    let names: Vec<_> = victim.node.documents("").into_iter().map(|listing| listing.doc.to_string()).collect();
    assert_eq!(names, ["notes:a", "notes:c"]);
    assert_eq!(victim.node.stats().entries_skipped, 1);
    victim.assert_unharmed(LANE);
}

#[test]
fn a_key_that_hides_where_the_frame_goes_on_closes_the_connection() {
    let long = vec![b'k'; DocId::MAX_LEN + 1];
    for key in [&[0xff, 0xfe, b':', b'1'][..], &long] {
        let mut victim = Victim::serving();
        victim.feed(LANE, &raw(key, 0x00, 0, &[]), false);
        assert_eq!(victim.closed, Some(CloseCode::BadFrame));
    }
}

#[test]
fn limit_9_a_key_that_names_no_document_costs_its_frame() {
    let mut victim = Victim::serving();
    for key in [&b""[..], b"nocolon", b":1", b"notes:", b"tombstones:x", b"a\nb:1"] {
        let before = victim.node.stats().refused;
        let payload = Delta { changes: vec![change()], ..Delta::default() }.encode();
        let announced = u32::try_from(payload.len()).expect("small");
        victim.feed(LANE, &raw(key, 0x00, announced, &payload), false);
        assert_eq!(victim.node.stats().refused, before + 1, "{key:?}");
    }
    assert_eq!(victim.node.stats().documents, 0);
    victim.assert_unharmed(LANE);
}

#[test]
fn unknown_types_are_passed_over_and_what_follows_is_read() {
    let mut victim = Victim::serving();
    for code in [0x02, 0x03, 0x06, 0x0a, 0x0b, 0x7f, 0xff] {
        victim.feed(LANE, &raw(b"notes:1", code, 5, b"xxxxx"), false);
    }
    assert_eq!(victim.node.stats().skipped, 7);
    victim.assert_unharmed(LANE);
}

#[test]
fn payloads_that_are_not_automerge_leave_no_document() {
    let mut victim = Victim::serving();
    let doc = DocId::new("notes:garbage").expect("valid");
    victim.feed(LANE, &delta(&doc, vec![Bytes::from_static(b"\x85\x6f\x4a\x83 no change at all")]), false);
    victim.feed(LANE, &encode_frame(Label::Snapshot(&doc), Payload::new(b"garbage").expect("small")), false);
    victim.feed(LANE, &encode_frame(Label::Snapshot(&doc), Payload::new(b"").expect("small")), false);
    victim.feed(LANE, &encode_frame(Label::Delta(&doc), Payload::new(b"").expect("small")), false);
    assert_eq!(victim.node.stats().refused, 4);
    assert_eq!(victim.node.stats().documents, 0);
    victim.assert_unharmed(LANE);
}

#[test]
fn delta_6_heads_alone_make_no_document() {
    let mut victim = Victim::serving();
    let doc = DocId::new("notes:heads").expect("valid");
    let heads = Delta { heads: vec![automerge::ChangeHash([3; 32])], ..Delta::default() };
    victim.feed(LANE, &heads.frame(&doc).expect("small"), false);
    assert!(!victim.node.contains(&doc));
    assert!(victim.node.documents("").is_empty());
    victim.assert_unharmed(LANE);
}

#[test]
fn limit_7_a_frame_that_is_not_complete_in_time_closes_the_connection() {
    let mut victim = Victim::serving();
    let frame = good("notes:slow");
    victim.feed(LANE, &frame.slice(..frame.len() - 1), false);
    victim.now.mono += Duration::from_secs(29);
    victim.node.handle(victim.now, Input::Timeout);
    victim.drain();
    assert_eq!(victim.closed, None);
    victim.now.mono += Duration::from_secs(2);
    victim.node.handle(victim.now, Input::Timeout);
    victim.drain();
    assert_eq!(victim.closed, Some(CloseCode::FrameDeadline));
}

#[test]
fn auth_6_a_stranger_gets_nothing_and_may_send_nothing_but_a_greeting() {
    for frame in [good("notes:1"), Summary { documents: 1, digest: [1; 32], seen: None }.frame()] {
        let mut victim = Victim::dialled();
        victim.feed(LANE, &frame, false);
        assert!(matches!(victim.closed, Some(CloseCode::TooLarge | CloseCode::Unexpected)), "{:?}", victim.closed);
        assert_eq!(victim.node.stats().documents, 0);
    }
    let mut silent = Victim::dialled();
    silent.now.mono += Duration::from_secs(11);
    silent.node.handle(silent.now, Input::Timeout);
    silent.drain();
    assert_eq!(silent.closed, Some(CloseCode::HelloDeadline));
}

#[test]
fn stalled_streams_stay_within_the_number_and_the_memory_allowed() {
    let mut victim = Victim::serving();
    let begun = raw(b"notes:1", 0x01, 1 << 20, &[0; 4096]);
    let ((), held) = peak(|| {
        for stream in 0..1000 {
            victim.feed(StreamId::new(1000 + stream, Role::Dialled, false), &begun, false);
        }
    });
    let stats = victim.node.stats();
    assert!(held < 1 << 20, "held {held} bytes");
    assert!(stats.receive_bytes <= 16 * (4096 + 16), "{} bytes", stats.receive_bytes);
    assert!(stats.stopped >= 1000 - 16, "{} streams were stopped", stats.stopped);
    assert_eq!(victim.closed, None);
}

#[test]
fn a_bidirectional_stream_is_stopped_and_finished_and_harms_nobody() {
    let mut victim = Victim::serving();
    let stream = StreamId::new(3, Role::Dialled, true);
    victim.feed(stream, &Bytes::from_static(b"anything"), false);
    assert_eq!(victim.stopped, [(stream, CloseCode::Unexpected)]);
    assert_eq!(victim.replies, [(stream, Bytes::new(), true)]);
    assert_eq!(victim.closed, None);
}
