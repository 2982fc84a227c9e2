//! What crossed, by what it was for.

use bytes::Bytes as Frame;
use peat_proto::Lane;
use peat_proto::wire::v1::{
    Assembler, Body, Caps, Entries, EntriesBuilder, Entry, Frame as Encoded, Incoming, Kind, Packer,
};

/// Bytes by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    /// Greetings and proofs.
    pub hello: u64,
    /// Everything else on the control lane: terms, summaries, cells, ranges, wishes.
    pub control: u64,
    /// Frames about documents, as they crossed.
    pub documents: u64,
    /// Of them, what they would have taken with no changes and documents in them.
    pub naming: u64,
}

/// What crossed since the connection began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meter {
    /// From the dialling side, and from the other.
    pub bytes: [Bytes; 2],
    /// Frames about documents, either way.
    pub frames: u64,
    /// Frames with content, either way.
    pub data: u64,
    /// Half round trips after greeting and proof, until nothing was left to say.
    pub half_trips: u64,
}

impl Bytes {
    /// What it cost to find out and to name what differs: everything but the greeting, the changes and the documents.
    ///
    /// Of a frame about documents that is what it would have taken with the changes and documents cut out and all else left
    /// as it is, lengths included; if it crossed compressed, compressed as one frame again. So what changes compress to never
    /// pays for names, and names are not charged for changes that do not compress.
    #[must_use]
    pub fn finding(&self) -> u64 {
        self.control + self.naming
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.hello + self.control + self.documents
    }
}

impl Meter {
    /// What it cost to find out and to name what differs, both ways.
    #[must_use]
    pub fn finding(&self) -> u64 {
        self.bytes.iter().map(Bytes::finding).sum()
    }

    /// All bytes, both ways.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.bytes.iter().map(Bytes::all).sum()
    }
}

/// A frame that one side sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub from: usize,
    pub lane: Lane,
    pub frame: Frame,
    /// The longest chain of answers that led to it, itself included, in frames.
    pub depth: u64,
}

/// A count of what crosses on one connection.
#[derive(Debug, Default)]
pub(super) struct Count {
    meter: Meter,
    streams: Vec<((usize, Lane), Assembler)>,
    packer: Packer,
    /// The depth before the first frame that is neither greeting nor proof.
    greeted: Option<u64>,
}

impl Count {
    /// What it has come to.
    pub(super) fn meter(&self) -> Meter {
        self.meter
    }

    /// Counts from here on.
    pub(super) fn restart(&mut self) {
        (self.meter, self.greeted) = (Meter::default(), Some(0));
    }

    /// One frame more.
    pub(super) fn add(&mut self, sent: &Sent) {
        let greets = self.bytes(sent);
        match self.greeted {
            _ if greets => {}
            None => {
                self.greeted = Some(sent.depth - 1);
                self.meter.half_trips = 1;
            }
            Some(greeted) => self.meter.half_trips = self.meter.half_trips.max(sent.depth.saturating_sub(greeted)),
        }
    }

    /// Counts the bytes of a frame by what it is; whether it is a greeting or a proof.
    fn bytes(&mut self, Sent { from, lane, frame, .. }: &Sent) -> bool {
        let known = self.streams.iter().position(|(of, _)| *of == (*from, *lane));
        let at = known.unwrap_or_else(|| {
            self.streams.push(((*from, *lane), Assembler::new()));
            self.streams.len() - 1
        });
        let assembler = &mut self.streams[at].1;
        assembler.push(frame.clone());
        let bytes = &mut self.meter.bytes[*from];
        let size = frame.len() as u64;
        let Ok(Some(Incoming::Frame(read))) = assembler.next(&Caps::PEER) else { panic!("one frame at a time") };
        let is_packed = read.kind == Kind::Packed;
        let entries = match read.kind {
            Kind::Hello | Kind::Proof => {
                bytes.hello += size;
                return true;
            }
            Kind::Entries => Entries::decode(read.body).expect("entries"),
            Kind::Packed => self.packer.unpack(read.body).expect("packed entries"),
            _ => {
                bytes.control += size;
                return false;
            }
        };
        let (mut body, mut content) = (Vec::new(), 0);
        for entry in entries.each() {
            content += hollow(&entry.expect("an entry"), &mut body);
        }
        let plain = Encoded::encoded_len(body.len()) as u64;
        let packed = if is_packed { self.packer.pack(&body).map(|frame| frame.len() as u64) } else { None };
        bytes.documents += size;
        bytes.naming += packed.map_or(plain, |packed| packed.min(plain)).min(size);
        self.meter.frames += 1;
        self.meter.data += u64::from(content > 0);
        false
    }
}

/// Appends an entry as it is encoded, without its changes or whole document; how many bytes these have.
fn hollow(entry: &Entry, to: &mut Vec<u8>) -> usize {
    let mut builder = EntriesBuilder::new(usize::MAX);
    assert!(builder.push(entry), "what came in a frame fits one");
    let content: Vec<&[u8]> = match &entry.body {
        Body::Word(word) => word.changes.iter().map(Frame::as_ref).collect(),
        Body::Saved(saved) => vec![&saved.bytes],
        Body::Piece(piece) => vec![&piece.bytes],
        Body::Marker(_) | Body::Refused(_) | Body::Held(_) => Vec::new(),
    };
    // Content stands last; in front of each change is its length.
    let mut rest = builder.body();
    let mut cut = Vec::new();
    for part in content.iter().rev() {
        let at = rest.windows(part.len()).rposition(|window| window == *part).expect("it is in it");
        cut.push(&rest[at + part.len()..]);
        rest = &rest[..at];
    }
    to.extend_from_slice(rest);
    cut.iter().rev().for_each(|part| to.extend_from_slice(part));
    content.iter().map(|part| part.len()).sum()
}
