//! Deletion markers (wire.md 6.1, 6.2).

use super::frame::{Bad, Frame, Input, kind, put_text, reserve};

/// Key of a batch of markers (4.1).
pub const TOMBSTONES_KEY: &str = "tombstones:batch";

/// What a legacy peer reserves for each announced marker, in bytes (6.2).
const TOMBSTONE_RESERVE: u64 = 128;

/// Where a deletion goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// To everybody.
    Bidirectional = 0,
    /// To the parent.
    Up = 1,
    /// To the children.
    Down = 2,
    /// To everybody, and never a default.
    SystemWide = 3,
}

/// The payload of type 0x04.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Everything before the first colon of the document's key.
    pub collection: String,
    /// Everything after it.
    pub id: String,
    /// Unix milliseconds.
    pub deleted_at_ms: u64,
    /// A logical time, which nobody compares (6.4).
    pub lamport: u64,
    /// Who says that it deleted.
    pub by: String,
    /// Why; an empty one decodes to none.
    pub reason: Option<String>,
    /// Where it goes.
    pub direction: Direction,
}

impl Tombstone {
    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(&mut out, &self.collection);
        put_text(&mut out, &self.id);
        out.extend_from_slice(&self.deleted_at_ms.to_be_bytes());
        out.extend_from_slice(&self.lamport.to_be_bytes());
        put_text(&mut out, &self.by);
        put_text(&mut out, self.reason.as_deref().unwrap_or_default());
        out.push(self.direction as u8);
        out
    }

    /// Bytes behind the direction are ignored.
    pub fn decode(payload: &[u8]) -> Result<Self, Bad> {
        let mut input = Input(payload);
        Ok(Self {
            collection: input.text()?,
            id: input.text()?,
            deleted_at_ms: input.u64()?,
            lamport: input.u64()?,
            by: input.text()?,
            reason: Some(input.text()?).filter(|reason| !reason.is_empty()),
            direction: Direction::decode(input.u8()?)?,
        })
    }

    /// The frame, and the batch entry, that carries it.
    #[must_use]
    pub fn frame(&self) -> Frame {
        Frame::new(kind::TOMBSTONE, &format!("tombstones:{}:{}", self.collection, self.id), self.encode())
    }

    /// The key of the document that it deletes.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}:{}", self.collection, self.id)
    }
}

impl Direction {
    /// The default of a collection (6.1).
    #[must_use]
    pub fn of(collection: &str) -> Self {
        match collection {
            "cells" | "contact_reports" => Self::Up,
            "commands" => Self::Down,
            _ => Self::Bidirectional,
        }
    }

    fn decode(byte: u8) -> Result<Self, Bad> {
        match byte {
            0 => Ok(Self::Bidirectional),
            1 => Ok(Self::Up),
            2 => Ok(Self::Down),
            3 => Ok(Self::SystemWide),
            other => Err(Bad::Direction(other)),
        }
    }
}

/// The payload of type 0x05 (6.2).
#[must_use]
pub fn encode_all(tombstones: &[Tombstone]) -> Vec<u8> {
    let mut out = (tombstones.len() as u32).to_be_bytes().to_vec();
    for tombstone in tombstones {
        let bytes = tombstone.encode();
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(&bytes);
    }
    out
}

/// One bad element fails all; slack inside an element and bytes behind the last one are ignored.
pub fn decode_all(payload: &[u8]) -> Result<Vec<Tombstone>, Bad> {
    let mut input = Input(payload);
    let count = input.u32()?;
    reserve(count, TOMBSTONE_RESERVE)?;
    let mut tombstones = Vec::new();
    for _ in 0..count {
        let len = input.u32()?;
        tombstones.push(Tombstone::decode(input.take(len as usize)?)?);
    }
    Ok(tombstones)
}

/// The frame of a batch of markers.
#[must_use]
pub fn batch_frame(tombstones: &[Tombstone]) -> Frame {
    Frame::new(kind::TOMBSTONE_BATCH, TOMBSTONES_KEY, encode_all(tombstones))
}
