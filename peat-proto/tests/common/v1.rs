//! Frames of `peat/sync/1`, read and written again; shared with the fuzz laws.

use bytes::Bytes;
use peat_proto::wire::v1::{
    Ask, BodyError, Cells, Entries, EntriesBuilder, Entry, EntryError, Hello, Kind, Packer, Ping, Pong, Proof, Pull,
    Shares, Summary, Terms, Want,
};

/// A body that was read.
#[derive(Debug, PartialEq)]
#[allow(missing_docs, reason = "named after what they hold")]
pub(super) enum Read {
    Hello(Hello),
    Proof(Proof),
    Terms(Terms),
    Summary(Summary),
    Pull(Pull),
    Cells(Cells),
    Want(Want),
    Ask(Ask),
    Shares(Shares),
    Entries(Vec<Result<Entry, EntryError>>),
    Packed(Entries),
    Ping(Ping),
    Pong(Pong),
}

/// Reads a body as deep as the wire goes.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(kind: Kind, body: Bytes) -> Result<Read, BodyError> {
    Ok(match kind {
        Kind::Hello => Read::Hello(Hello::decode(body)?),
        Kind::Proof => Read::Proof(Proof::decode(body)?),
        Kind::Terms => Read::Terms(Terms::decode(body)?),
        Kind::Summary => Read::Summary(Summary::decode(body)?),
        Kind::Pull => Read::Pull(Pull::decode(body)?),
        Kind::Cells => Read::Cells(Cells::decode(body)?),
        Kind::Want => Read::Want(Want::decode(body)?),
        Kind::Ask => Read::Ask(Ask::decode(body)?),
        Kind::Shares => Read::Shares(Shares::decode(body)?),
        Kind::Entries => Read::Entries(Entries::decode(body)?.each().collect()),
        Kind::Packed => Read::Packed(Packer::new().unpack(body)?),
        Kind::Ping => Read::Ping(Ping::decode(body)?),
        Kind::Pong => Read::Pong(Pong::decode(body)?),
    })
}

/// The frame for what was read; `None` where the same can be written in several ways, or not by this version.
#[must_use]
pub(super) fn written(read: &Read) -> Option<Bytes> {
    Some(match read {
        Read::Hello(hello) => hello.frame(),
        Read::Proof(proof) => proof.frame(),
        Read::Terms(terms) => terms.frame(),
        Read::Summary(summary) => summary.frame(),
        Read::Pull(pull) => pull.frame(),
        Read::Cells(cells) => cells.frame(),
        Read::Want(want) => want.frame(),
        Read::Ask(ask) => ask.frame(),
        Read::Shares(shares) => shares.frame(),
        Read::Entries(entries) => {
            let mut builder = EntriesBuilder::new(usize::MAX);
            for entry in entries {
                let entry = entry.as_ref().ok()?;
                assert!(builder.push(entry), "a received entry fits into a frame");
            }
            builder.frame()
        }
        Read::Packed(_) => return None,
        Read::Ping(ping) => ping.frame(),
        Read::Pong(pong) => pong.frame(),
    })
}
