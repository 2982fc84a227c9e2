//! Bad input on long-lived lanes: what each fault costs, and that it costs nothing else.

#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "common/heap.rs"]
mod heap;

use std::time::Duration;

use bytes::Bytes;
use heap::{Counting, peak};
use peat_proto::store::{Entry, StoreCommand, Stored};
use peat_proto::wire::v1::{
    Body, EntriesBuilder, Entry as WireEntry, Hello, Kind, Piece, Proof, Saved, Scope, Summary, Terms, Word,
};
use peat_proto::{
    Boot, CloseCode, Config, ConnId, DocId, Heads, Input, Link, Node, Now, Output, PeerId, Role, StreamId, Time, Wire,
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
    /// All connections that were closed, that of the test's peer too.
    closings: Vec<(ConnId, CloseCode)>,
    sent: Vec<Bytes>,
    stopped: Vec<(StreamId, CloseCode)>,
    replies: Vec<(StreamId, Bytes, bool)>,
}

impl Victim {
    /// A node that has just been dialled by somebody.
    fn dialled() -> Self {
        Self::with(Config::default())
    }

    fn with(mut config: Config) -> Self {
        config.admission.open = true;
        let now = Now { mono: Time::ZERO, unix_ms: 1_700_000_000_000 };
        let boot = Boot { store: [1; 16], number: 1 };
        let mut node = Node::new(config, PeerId([1; 32]), boot, [1; 32], Vec::<Entry>::new(), now);
        node.handle(now, connected(CONN, PeerId([2; 32])));
        let mut victim = Self {
            node,
            now,
            closed: None,
            closings: Vec::new(),
            sent: Vec::new(),
            stopped: Vec::new(),
            replies: Vec::new(),
        };
        victim.drain();
        victim
    }

    /// Another peer, over which documents flow too.
    fn serve_another(&mut self, conn: ConnId, peer: PeerId) {
        self.node.handle(self.now, connected(conn, peer));
        self.drain();
        for frame in [hello(2).frame(), Proof::default().frame(), terms().frame(), summary().frame()] {
            self.feed_on(conn, CONTROL, &frame);
        }
    }

    fn feed_on(&mut self, conn: ConnId, stream: StreamId, bytes: &Bytes) {
        self.node.handle(self.now, Input::Received { conn, stream, bytes: bytes.clone(), fin: false });
        self.drain();
    }

    /// A node over which documents flow.
    fn serving() -> Self {
        Self::serving_with(Config::default())
    }

    fn serving_with(config: Config) -> Self {
        let mut victim = Self::with(config);
        for frame in [hello(1).frame(), Proof::default().frame(), terms().frame(), summary().frame()] {
            victim.feed(CONTROL, &frame, false);
        }
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
                Output::Disconnect { conn, code } => {
                    self.closings.push((conn, code));
                    if conn == CONN {
                        self.closed = Some(code);
                    }
                }
                Output::Send { conn, frame, .. } => {
                    self.node.handle(self.now, Input::Sent { conn, bytes: frame.len() });
                    self.sent.push(frame);
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

    /// Whether a refusal was sent.
    fn says_refused(&self) -> bool {
        let entries = self.sent.iter().filter(|frame| frame.get(1) == Some(&0x10));
        entries
            .filter_map(|frame| peat_proto::wire::v1::Entries::decode(frame.slice(2..)).ok())
            .any(|entries| entries.each().any(|entry| matches!(entry, Ok(WireEntry { body: Body::Refused(_), .. }))))
    }

    /// That the lane still carries good frames.
    fn assert_unharmed(&mut self, stream: StreamId) {
        let name = format!("notes:after-{}", self.node.stats().documents);
        self.feed(stream, &good(&name), false);
        assert_eq!(self.closed, None);
        assert!(self.node.contains(&DocId::new(&name).expect("valid")), "a good frame after it is applied");
    }
}

fn connected(conn: ConnId, peer: PeerId) -> Input {
    let link = Link { role: Role::Accepted, wire: Wire::V1, reliable: true, binding: [0; 32], rtt: None };
    Input::Connected { conn, peer, link }
}

fn hello(nonce: u8) -> Hello {
    Hello { least: 1, newest: 1, nonce: [nonce; 32], boot: 1, abilities: Hello::PACKED, largest: 16 << 20 }
}

fn terms() -> Terms {
    let scope = |id| Scope { id: [id; 8], sends: true, takes: true };
    Terms { generation: 1, key: [1; 8], scopes: vec![scope(1), scope(2)] }
}

fn summary() -> Summary {
    Summary { generation: 1, heard: 1, ..Summary::default() }
}

/// A word with one change for a document of its own.
fn good(name: &str) -> Bytes {
    said(name, Body::Word(Word { changes: vec![change()], ..Word::default() }))
}

fn said(name: &str, body: Body) -> Bytes {
    frame_of(&[entry(name, body)])
}

fn entry(name: &str, body: Body) -> WireEntry {
    WireEntry { doc: DocId::new(name).expect("valid"), body }
}

fn frame_of(entries: &[WireEntry]) -> Bytes {
    let mut frame = EntriesBuilder::new(1 << 20);
    assert!(entries.iter().all(|entry| frame.push(entry)));
    frame.frame()
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

/// A frame made by hand, right or wrong.
fn raw(code: u8, announced: usize, body: &[u8]) -> Bytes {
    let mut out = leb(announced + 1);
    out.push(code);
    out.extend(body);
    out.into()
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
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
    for kind in Kind::ALL {
        let mut victim = Victim::serving();
        let ((), held) = peak(|| victim.feed(LANE, &raw(kind.code(), (1 << 28) - 2, &[]), false));
        assert_eq!(victim.closed, Some(CloseCode::TooLarge), "{kind:?}");
        assert!(held < 1 << 20, "{kind:?} held {held} bytes");
    }
    let mut victim = Victim::serving();
    victim.feed(LANE, &Bytes::from_static(&[0xff; 8]), false);
    assert_eq!(victim.closed, Some(CloseCode::BadFrame), "a length without an end");
}

#[test]
fn limit_2_impossible_counts_cost_no_memory() {
    // A word with 1,000 heads of which none is there, and more than are allowed.
    for count in [1000, 1 << 27] {
        let mut content = leb(7);
        content.extend(b"notes:1");
        content.push(0);
        content.extend(leb(count));
        let mut body = vec![0x01];
        body.extend(leb(content.len()));
        body.extend(content);
        let mut victim = Victim::serving();
        let frame = raw(0x10, body.len(), &body);
        let ((), held) = peak(|| victim.feed(LANE, &frame, false));
        assert!(held < 1 << 20, "held {held} bytes");
        assert_eq!(victim.node.stats().entries_skipped, 1);
        victim.assert_unharmed(LANE);
    }
}

#[test]
fn limit_5_a_bad_entry_costs_itself_and_not_its_neighbours() {
    let entry = |name: &str| entry(name, Body::Word(Word { changes: vec![change()], ..Word::default() }));
    let mut bytes = frame_of(&[entry("notes:a"), entry("notes:b"), entry("notes:c")]).to_vec();
    let at = bytes.windows(7).position(|window| window == b"notes:b").expect("the middle name");
    bytes[at] = 0xff;
    let mut victim = Victim::serving();
    victim.feed(LANE, &bytes.into(), false);
    let names: Vec<_> = victim.node.documents("").into_iter().map(|listing| listing.doc.to_string()).collect();
    assert_eq!(names, ["notes:a", "notes:c"]);
    assert_eq!(victim.node.stats().entries_skipped, 1);
    victim.assert_unharmed(LANE);
}

#[test]
fn limit_9_a_name_that_names_no_document_costs_its_entry() {
    let mut victim = Victim::serving();
    let long = [b"notes:".to_vec(), vec![b'k'; DocId::MAX_LEN]].concat();
    for name in [&b""[..], b"nocolon", b":1", b"notes:", b"tombstones:x", b"a\nb:1", &[0xff, b':', b'1'], &long] {
        let before = victim.node.stats().entries_skipped;
        let mut content = leb(name.len());
        content.extend(name);
        content.extend([0x08, 0]);
        content.extend(leb(change().len()));
        content.extend(change());
        let mut body = vec![0x01];
        body.extend(leb(content.len()));
        body.extend(content);
        victim.feed(LANE, &raw(0x10, body.len(), &body), false);
        assert_eq!(victim.node.stats().entries_skipped, before + 1, "{name:?}");
    }
    assert_eq!(victim.node.stats().documents, 0);
    victim.assert_unharmed(LANE);
}

#[test]
fn auth_7_optional_types_are_passed_over_and_others_close_with_a_code() {
    let mut victim = Victim::serving();
    for code in [0x82, 0x90, 0xa0, 0xff] {
        victim.feed(LANE, &raw(code, 5, b"xxxxx"), false);
    }
    assert_eq!(victim.node.stats().skipped, 4);
    victim.feed(LANE, &raw(0x10, 4, &[0xee, 2, 1, b'x']), false);
    assert_eq!(victim.node.stats().entries_skipped, 1, "an optional entry");
    victim.assert_unharmed(LANE);
    for frame in [raw(0x7f, 5, b"xxxxx"), raw(0x10, 12, &[0x6e, 10, 7, b'n', b'o', b't', b'e', b's', b':', b'1', 0, 0])]
    {
        let mut victim = Victim::serving();
        victim.feed(LANE, &frame, false);
        assert_eq!(victim.closed, Some(CloseCode::Version));
    }
    // A field of Terms: odd tags may be passed over, even ones not.
    for (tag, closed) in [(1, None), (2, Some(CloseCode::Version))] {
        let mut body = terms().frame().slice(2..).to_vec();
        body.extend([tag, 3, b'x', b'y', b'z']);
        let mut victim = Victim::dialled();
        for frame in [hello(1).frame(), Proof::default().frame(), raw(0x03, body.len(), &body)] {
            victim.feed(CONTROL, &frame, false);
        }
        assert_eq!(victim.closed, closed, "tag {tag}");
    }
    let mut newer = hello(1);
    (newer.least, newer.newest) = (2, 3);
    let mut victim = Victim::dialled();
    victim.feed(CONTROL, &newer.frame(), false);
    assert_eq!(victim.closed, Some(CloseCode::Version));
}

#[test]
fn payloads_that_are_not_automerge_leave_no_document_and_are_answered() {
    let mut victim = Victim::serving();
    let garbage = Bytes::from_static(b"\x85\x6f\x4a\x83 no change at all");
    let piece =
        Piece { id: [1; 16], form: peat_proto::wire::v1::Form::Saved, whole: 7, offset: 0, bytes: garbage.slice(..7) };
    let bodies = [
        Body::Word(Word { changes: vec![garbage.clone()], ..Word::default() }),
        Body::Saved(Saved { answer: true, bytes: garbage.clone() }),
        Body::Saved(Saved { answer: false, bytes: garbage }),
        Body::Piece(piece),
        Body::Marker(Bytes::from_static(b"no marker")),
    ];
    for (at, body) in bodies.into_iter().enumerate() {
        victim.sent.clear();
        victim.feed(LANE, &said(&format!("notes:garbage{at}"), body), false);
        assert!(victim.says_refused(), "the sender is told");
    }
    assert_eq!(victim.node.stats().documents, 0);
    victim.assert_unharmed(LANE);
}

#[test]
fn delta_6_heads_alone_make_no_document() {
    let mut victim = Victim::serving();
    let heads = Heads::new(vec![automerge::ChangeHash([3; 32])]);
    victim.feed(LANE, &said("notes:heads", Body::Word(Word { heads, ..Word::default() })), false);
    assert!(!victim.node.contains(&DocId::new("notes:heads").expect("valid")));
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
    for frame in [good("notes:1"), terms().frame(), summary().frame()] {
        let mut victim = Victim::dialled();
        victim.feed(LANE, &frame, false);
        assert!(matches!(victim.closed, Some(CloseCode::TooLarge | CloseCode::Unexpected)), "{:?}", victim.closed);
        assert_eq!(victim.node.stats().documents, 0);
    }
    let mut early = Victim::dialled();
    early.feed(CONTROL, &Proof::default().frame(), false);
    assert_eq!(early.closed, Some(CloseCode::Unexpected), "a proof builds on a greeting");
    let mut twice = Victim::dialled();
    twice.feed(CONTROL, &hello(1).frame(), false);
    twice.feed(CONTROL, &hello(2).frame(), false);
    assert_eq!(twice.closed, Some(CloseCode::Unexpected), "one greeting for a connection");
    let mut silent = Victim::dialled();
    silent.now.mono += Duration::from_secs(11);
    silent.node.handle(silent.now, Input::Timeout);
    silent.drain();
    assert_eq!(silent.closed, Some(CloseCode::HelloDeadline));
}

#[test]
fn stalled_streams_stay_within_the_number_and_the_memory_allowed() {
    let mut victim = Victim::serving();
    let begun = raw(0x10, 1 << 20, &[0; 4096]);
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

/// Several that fill the budget together, and one that has just sent a little: of those who fill it, who holds most goes.
#[test]
fn a_full_budget_closes_who_holds_most_and_not_who_sent_last() {
    let mut config = Config::default();
    config.receive_budget = 64 << 10;
    let mut victim = Victim::serving_with(config);
    let hogs = [ConnId(2), ConnId(3), ConnId(4)];
    for (n, conn) in hogs.into_iter().enumerate() {
        victim.serve_another(conn, PeerId([3 + u8::try_from(n).expect("few"); 32]));
        victim.feed_on(conn, LANE, &raw(0x10, 1 << 20, &vec![0; (20 << 10) + n]));
    }
    assert_eq!(victim.closings, [], "all of it is within the budget");
    victim.feed(LANE, &raw(0x10, 1 << 20, &[0; 8 << 10]), false);
    assert_eq!(victim.closings, [(ConnId(4), CloseCode::Exhausted)]);
    assert!(victim.node.stats().receive_bytes <= 64 << 10);
    assert_eq!(victim.closed, None);
}

#[test]
fn one_connection_has_half_of_the_budget_at_most() {
    let mut config = Config::default();
    config.receive_budget = 64 << 10;
    let mut victim = Victim::serving_with(config);
    victim.serve_another(ConnId(2), PeerId([3; 32]));
    victim.feed_on(ConnId(2), LANE, &raw(0x10, 1 << 20, &[0; 31 << 10]));
    assert_eq!(victim.closings, []);
    victim.feed_on(ConnId(2), LANE, &Bytes::from(vec![0; 2 << 10]));
    assert_eq!(victim.closings, [(ConnId(2), CloseCode::Exhausted)]);
    assert_eq!(victim.node.stats().receive_bytes, 0);
}

/// The largest frame that trickles in 64 KiB a time just within the deadline of each.
#[test]
fn a_drip_feeder_holds_memory_for_two_minutes_and_not_for_eight() {
    let mut victim = Victim::serving();
    victim.feed(LANE, &raw(0x10, (1 << 20) - 1, &[0; 16]), false);
    let mut passed = Duration::ZERO;
    while victim.closed.is_none() {
        let step = Duration::from_secs(29);
        (victim.now.mono, passed) = (victim.now.mono + step, passed + step);
        victim.node.handle(victim.now, Input::Timeout);
        victim.drain();
        if victim.closed.is_none() {
            victim.feed(LANE, &Bytes::from(vec![0; 64 << 10]), false);
        }
    }
    assert_eq!(victim.closed, Some(CloseCode::FrameDeadline));
    assert!(passed <= Duration::from_secs(150), "after {passed:?}");
}

/// They cost no credit, so nothing but their number bounds them.
#[test]
fn streams_that_bring_nothing_end_the_connection_when_there_are_too_many() {
    let stream = |number: u64| StreamId::new(number, Role::Dialled, false);
    let mut victim = Victim::serving();
    for number in 0..u64::from(Link::MAX_EMPTY_STREAMS) - 1 {
        if number % 2 == 0 {
            victim.feed(stream(100 + number), &Bytes::new(), true);
        } else {
            victim.node.handle(victim.now, Input::Reset { conn: CONN, stream: stream(100 + number) });
            victim.drain();
        }
        // Those that brought something do not count, nor do our own.
        victim.feed(stream(1_000_000 + number), &Bytes::from_static(&[0]), true);
        let ours = StreamId::new(number, Role::Accepted, true);
        victim.node.handle(victim.now, Input::Reset { conn: CONN, stream: ours });
    }
    victim.assert_unharmed(LANE);
    victim.feed(stream(10_000), &Bytes::new(), true);
    assert_eq!(victim.closed, Some(CloseCode::Exhausted));
    assert_eq!(victim.node.stats().closed, 1);
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

/// The largest frame, of nothing but unknown names and a byte that is no change. A blank document for each took 12 kB.
#[test]
fn a_frame_of_unknown_names_and_garbage_makes_no_documents_and_holds_little_memory() {
    let garbage = Bytes::from_static(b"x");
    let word = Word { changes: vec![garbage.clone()], ..Word::default() };
    let piece = Piece {
        id: Piece::id_of(&garbage),
        form: peat_proto::wire::v1::Form::Changes,
        whole: 1,
        offset: 0,
        bytes: garbage.clone(),
    };
    for body in [Body::Word(word), Body::Saved(Saved { answer: true, bytes: garbage }), Body::Piece(piece)] {
        unknown_names_hold_little_memory(&body);
    }
}

fn unknown_names_hold_little_memory(body: &Body) {
    let mut frame = EntriesBuilder::new(1 << 20);
    let names = (0..).take_while(|n| frame.push(&entry(&format!("n:{n}"), body.clone()))).count();
    assert!(names > 20_000, "{names}");
    let frame = frame.frame();
    let mut generous = Config::default();
    generous.max_exchanges = names;
    // What waits has an exchange, 4,096 at most, or counts for 1 KiB of 32 MiB.
    for (config, most) in [(Config::default(), 4096), (generous, 32 << 10)] {
        let bytes = (most << 10) + names.min(config.max_exchanges) * 600;
        let mut victim = Victim::serving_with(config);
        let input = Input::Received { conn: CONN, stream: LANE, bytes: frame.clone(), fin: false };
        let ((), held) = peak(|| victim.node.handle(victim.now, input));
        let stats = victim.node.stats();
        assert_eq!(stats.loaded, 0, "no document is made before a change was admitted");
        assert!(stats.refused as usize >= names.saturating_sub(most), "{} of {names} were refused", stats.refused);
        assert!(held < bytes, "{held} bytes for {names} names");
        victim.drain();
        assert_eq!((victim.node.stats().documents, victim.node.stats().undurable_bytes), (0, 0));
        victim.assert_unharmed(LANE);
    }
}

/// As many heads as there may be, for as many documents as are followed, would be 134 MB.
#[test]
fn what_a_peer_names_of_many_documents_holds_little_memory_and_is_heard_again_later() {
    const DOCUMENTS: u64 = 4096;
    let hash = |n: u64| {
        let mut hash = [7; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        automerge::ChangeHash(hash)
    };
    let heads = Heads::new((0..1024).map(hash).collect());
    let word = |n: u64| said(&format!("n:{n}"), Body::Word(Word { heads: heads.clone(), ..Word::default() }));
    let mut victim = Victim::serving();
    let ((), held) = peak(|| {
        for n in 0..DOCUMENTS {
            victim.feed(LANE, &word(n), false);
            victim.sent.clear();
        }
    });
    println!("{held} bytes");
    let unheard = victim.node.stats().unheard;
    assert!(unheard > 0 && unheard < DOCUMENTS, "{unheard} were not heard");
    assert!(held < 4 << 20, "{held} bytes held for {DOCUMENTS} names");
    victim.assert_unharmed(LANE);
    // Nobody answers, and they are let go.
    for _ in 0..20 {
        victim.now.mono += Duration::from_secs(10);
        victim.node.handle(victim.now, Input::Timeout);
        victim.drain();
    }
    victim.sent.clear();
    victim.feed(LANE, &word(DOCUMENTS), false);
    assert_eq!(victim.node.stats().unheard, unheard, "there is room again");
    assert!(!victim.sent.is_empty() && victim.closed.is_none(), "it is answered");
}
