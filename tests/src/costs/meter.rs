//! What crossed, by what it was for.

use bytes::Bytes as Frame;
use peat_proto::Lane;
use peat_proto::wire::v1::{Assembler, Body, Caps, Entries, Incoming, Kind, Packer};

/// Bytes by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    /// Greetings and proofs.
    pub hello: u64,
    /// Everything else on the control lane: terms, summaries, cells, ranges, wishes.
    pub control: u64,
    /// Frames about documents, as they crossed.
    pub documents: u64,
    /// Changes and whole documents in them, before the frames were compressed.
    pub content: u64,
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
    /// What it cost to find out and to name what differs: everything but the greeting and the content. Of compressed
    /// frames, what they have beyond the uncompressed content.
    #[must_use]
    pub fn finding(&self) -> u64 {
        self.control + self.documents.saturating_sub(self.content)
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
        let entries = match read.kind {
            Kind::Hello | Kind::Proof => {
                bytes.hello += size;
                return true;
            }
            Kind::Entries => Entries::decode(read.body).expect("entries"),
            Kind::Packed => Packer::new().unpack(read.body).expect("packed entries"),
            _ => {
                bytes.control += size;
                return false;
            }
        };
        let content = entries.each().map(|entry| content(&entry.expect("an entry").body)).sum::<usize>() as u64;
        bytes.documents += size;
        bytes.content += content;
        self.meter.frames += 1;
        self.meter.data += u64::from(content > 0);
        false
    }
}

/// Bytes of changes and of whole documents.
fn content(body: &Body) -> usize {
    match body {
        Body::Word(word) => word.changes.iter().map(Frame::len).sum(),
        Body::Saved(saved) => saved.bytes.len(),
        Body::Piece(piece) => piece.bytes.len(),
        Body::Marker(_) | Body::Refused(_) | Body::Held(_) => 0,
    }
}
