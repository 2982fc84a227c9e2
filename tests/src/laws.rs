//! What holds for every decoder of remote or stored bytes, whatever the bytes.
//!
//! Each law takes any input, panics if it is broken, and says whether it found the input sound. The fuzz targets in
//! `fuzz/` search for inputs that break them; `tests/tests/corpora.rs` replays the inputs that were found worth keeping.
//! The binary that calls a law makes [`heap::Counting`] its global allocator.

use std::fmt::Debug;

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use peat_node::Ticket;
use peat_proto::Config;
use peat_proto::store::Record;
use peat_proto::wire::{
    Assembler, Batch, BatchBuilder, Caps, Delta, Entry, Frame, FrameError, Incoming, Label, MessageType, Payload,
    RawEntry, encode_frame,
};

mod admission;
mod fleet;
#[path = "../../peat-proto/tests/common/heap.rs"]
pub mod heap;
mod legacy;
mod seal;
mod v1;

pub use admission::admit;
pub use fleet::world;
pub use legacy::{auth_m, auth_p, negentropy, tombstone, tombstones};
pub use v1::{v1_body, v1_frames, v1_handshake, v1_ranges, v1_sketch};

/// A law, by the name of its fuzz target and its corpus.
pub type Law = (&'static str, fn(&[u8]) -> bool);

/// All of them.
pub const ALL: &[Law] = &[
    ("admit", admit),
    ("auth_m", auth_m),
    ("auth_p", auth_p),
    ("batch", batch),
    ("delta", delta),
    ("frames", frames),
    ("negentropy", negentropy),
    ("record", record),
    ("ticket", ticket),
    ("tombstone", tombstone),
    ("tombstones", tombstones),
    ("v1_body", v1_body),
    ("v1_frames", v1_frames),
    ("v1_handshake", v1_handshake),
    ("v1_ranges", v1_ranges),
    ("v1_sketch", v1_sketch),
    ("world", world),
];

/// A stream: `flags u8 | pieces u8 | length u8 of each piece | bytes`. However it is cut into pieces, the same frames
/// come out, and each is written as it was read. With flag 1 the stream is that of a legacy peer.
pub fn frames(input: &[u8]) -> bool {
    let Some((&[flags, pieces], rest)) = input.split_first_chunk() else { return false };
    let Some((cuts, stream)) = rest.split_at_checked(usize::from(pieces)) else { return false };
    let stream = Bytes::copy_from_slice(stream);
    let config = Config::default();
    let mut caps = Caps::v0(&config);
    if flags & 1 == 1 {
        (caps.tombstone, caps.tombstones, caps.negentropy) = (None, None, None);
    }

    let mut incoming = Vec::new();
    let end = read(&stream, &[], &caps, |next| incoming.push(next));
    let mut pieced = Vec::new();
    assert_eq!(read(&stream, cuts, &caps, |next| pieced.push(next)), end, "the end depends on the pieces {cuts:?}");
    assert_eq!(pieced, incoming, "frames depend on the pieces {cuts:?}");
    let bounded = within_bounds(&stream, || read(&stream, cuts, &caps, drop));
    assert_eq!(bounded, end);

    let mut rest = &stream[..];
    for next in &incoming {
        rest = match next {
            Incoming::Frame(frame) => {
                rest.strip_prefix(&written(frame)[..]).expect("a frame is written as it was read")
            }
            Incoming::Skipped { bytes, .. } => {
                let bytes = usize::try_from(*bytes).expect("no more than there is");
                rest.get(bytes..).expect("no more is skipped than there is")
            }
        };
    }
    match end {
        Ok(()) => assert!(rest.is_empty(), "{} bytes are neither read nor missed", rest.len()),
        Err(FrameError::Truncated { received }) => assert_eq!(received, rest.len() as u64),
        Err(_) => {}
    }
    end.is_ok() && !incoming.is_empty()
}

/// A batch: bad entries cost only themselves, and what is sound is written as it was read.
pub fn batch(input: &[u8]) -> bool {
    let payload = Bytes::copy_from_slice(input);
    let decoded = within_bounds(input, || {
        let batch = Batch::decode(payload.clone())?;
        let sound = batch.entries().filter(Result::is_ok).count();
        Ok::<_, peat_proto::wire::BatchError>((batch, sound))
    });
    let Ok((batch, sound)) = decoded else { return false };
    let raw: Vec<_> = batch.raw_entries().collect();
    assert_eq!(raw.len(), batch.len());
    assert_eq!(raw.is_empty(), batch.is_empty());

    let count = u32::try_from(raw.len()).expect("a count of 32 bits").to_be_bytes();
    let header = [&batch.id.to_be_bytes()[..], &batch.created_ms.to_be_bytes(), &[batch.ttl], &count].concat();
    let written: Vec<u8> = raw.iter().flat_map(written_entry).collect();
    let layout = [&header[..], &written].concat();
    assert!(input.starts_with(&layout));
    // What tombstones do not use of their entries counts too, and is not written again.
    let slack = batch.trailing - (input.len() - layout.len());

    let entries: Vec<_> = batch.entries().flatten().collect();
    assert_eq!(entries.len(), sound);
    let mut builder = BatchBuilder::new(batch.id, batch.created_ms, batch.ttl, usize::MAX);
    for entry in &entries {
        assert!(builder.push(entry), "a received entry fits into a frame");
    }
    let rebuilt = builder.finish();
    // The key of a tombstone says nothing; ours always names the document.
    if sound == raw.len() && slack == 0 && entries.iter().all(|entry| matches!(entry, Entry::Document { .. })) {
        assert_eq!(rebuilt, layout);
    }
    let again = Batch::decode(rebuilt).expect("our own batch");
    assert!(again.entries().eq(entries.into_iter().map(Ok)));
    assert_eq!(again.trailing, 0);
    sound > 0
}

/// A message of the Automerge sync protocol.
pub fn delta(input: &[u8]) -> bool {
    let sound = canonical(input, Delta::decode, |delta| delta.encode().to_vec());
    if let Ok(delta) = Delta::decode(Bytes::copy_from_slice(input)) {
        assert_eq!(delta.encoded_len(), input.len());
    }
    sound
}

/// A record of the store.
pub fn record(input: &[u8]) -> bool {
    canonical(input, |bytes| Record::decode(&bytes), Record::encode)
}

/// A ticket: the text itself if it begins like one, else what the text encodes, without the checksum, which no search
/// would find.
pub fn ticket(input: &[u8]) -> bool {
    let mut text = input.to_vec();
    if !input.starts_with(b"peat") {
        let [a, b, c, d, ..] = *blake3::hash(input).as_bytes();
        let digits = BASE32_NOPAD.encode(&[input, &[a, b, c, d]].concat());
        text = format!("peat{}", digits.to_ascii_lowercase()).into_bytes();
    }
    let read = |bytes: Bytes| {
        let text = std::str::from_utf8(&bytes).map_err(|_| peat_node::BadTicket::Mistyped)?;
        text.parse::<Ticket>()
    };
    canonical(&text, read, |ticket| ticket.to_string().into_bytes())
}

/// The law of every codec in which a value has one form: what is read is written as the same bytes, these read as the
/// same value, and reading stays within bounds.
fn canonical<T: Debug + PartialEq, E: Debug + PartialEq>(
    input: &[u8],
    decode: impl Fn(Bytes) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> bool {
    let bytes = Bytes::copy_from_slice(input);
    let decoded = within_bounds(input, || decode(bytes.clone()));
    let Ok(value) = &decoded else { return false };
    let encoded = encode(value);
    assert_eq!(encoded, input, "written otherwise than read: {value:?}");
    assert_eq!(decode(encoded.into()), decoded);
    true
}

/// Runs a decoder; it may hold 4 times its input and 64 KiB.
fn within_bounds<R>(input: &[u8], decode: impl FnOnce() -> R) -> R {
    within(4 * input.len() + (64 << 10), decode)
}

/// Runs what may hold so many bytes.
fn within<R>(limit: usize, run: impl FnOnce() -> R) -> R {
    let (_, probe) = heap::peak(|| std::hint::black_box(vec![0_u8; 64]));
    assert!(probe >= 64, "heap::Counting is not the global allocator");
    let (result, peak) = heap::peak(run);
    assert!(peak <= limit, "{peak} bytes were allocated; {limit} are allowed");
    result
}

/// Reads a whole stream that arrives in pieces; one piece with the rest follows the given lengths.
fn read(stream: &Bytes, cuts: &[u8], caps: &Caps, mut seen: impl FnMut(Incoming)) -> Result<(), FrameError> {
    let mut assembler = Assembler::new();
    let mut rest = stream.clone();
    let lengths = cuts.iter().map(|&length| usize::from(length)).chain([usize::MAX]);
    for length in lengths {
        assembler.push(rest.split_to(length.min(rest.len())));
        loop {
            match assembler.next(caps) {
                Ok(Some(next)) => seen(next),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(assembler.next(caps), Err(error), "a lost stream stays lost");
                    return Err(error);
                }
            }
        }
        assert!(assembler.buffered() <= stream.len());
    }
    assembler.finish()
}

/// The bytes of a frame, by the layout and, where we would send such a frame, by our encoder.
fn written(frame: &Frame) -> Vec<u8> {
    let key = Bytes::copy_from_slice(frame.key.as_bytes());
    let bytes = written_entry(&RawEntry { key, code: frame.kind.code(), payload: frame.payload.clone() });
    let doc = frame.doc();
    let label = match (frame.kind, &doc) {
        (MessageType::Delta, Ok(doc)) => Label::Delta(doc),
        (MessageType::Snapshot, Ok(doc)) => Label::Snapshot(doc),
        (MessageType::Tombstones, _) => Label::Tombstones,
        (MessageType::NegentropyResponse, _) => Label::NegentropyResponse,
        (MessageType::Batch, _) => Label::Batch,
        _ => return bytes,
    };
    if label.key() == frame.key.as_str() {
        let payload = Payload::new(&frame.payload).expect("it came in a frame");
        assert_eq!(encode_frame(label, payload), bytes);
    }
    bytes
}

/// The layout of a frame or entry, written down a second time.
fn written_entry(entry: &RawEntry) -> Vec<u8> {
    let key_len = u16::try_from(entry.key.len()).expect("a key has at most 65,535 bytes");
    let payload_len = u32::try_from(entry.payload.len()).expect("a payload has at most 4,294,967,295 bytes");
    let payload = [&payload_len.to_be_bytes()[..], &entry.payload].concat();
    [&key_len.to_be_bytes()[..], &entry.key, &[entry.code], &payload].concat()
}
