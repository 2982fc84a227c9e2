//! Makes what a search has bent whole again where no search would: lengths, checksums and head hashes of Automerge
//! chunks. Without it nothing bent would get past Automerge's first look.

use std::io::Read;
use std::panic::catch_unwind;

use automerge::{Automerge, ChangeHash, LoadOptions, VerificationMode};
use flate2::read::DeflateDecoder;
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// Magic and checksum.
const KIND: usize = 8;
const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;
const COMPRESSED: u8 = 2;

/// Gives every chunk the length that it has and the checksum that it asks for. Chunks are told apart by their magic.
pub(super) fn sealed(input: &[u8]) -> Vec<u8> {
    let mut starts: Vec<usize> = (0..input.len()).filter(|&at| input[at..].starts_with(&MAGIC)).collect();
    let first = starts.first().copied().unwrap_or(input.len());
    starts.push(input.len());
    let mut out = input[..first].to_vec();
    for ends in starts.windows(2) {
        let piece = &input[ends[0]..ends[1]];
        match parts(piece) {
            Some((kind, body)) => out.extend(chunk(kind, body)),
            None => out.extend(piece),
        }
    }
    out
}

/// Gives a saved document the heads that its changes have. The document is loaded for it: walk it first.
pub(super) fn with_heads(document: Vec<u8>) -> Vec<u8> {
    mended(&document).unwrap_or(document)
}

fn mended(document: &[u8]) -> Option<Vec<u8>> {
    let (DOCUMENT, body) = parts(document)? else { return None };
    let unchecked = || LoadOptions::new().verification_mode(VerificationMode::DontCheck);
    let loaded = catch_unwind(|| Automerge::load_with_options(document, unchecked())).ok()?.ok()?;
    let mut heads = loaded.get_heads();
    heads.sort_unstable();
    let at = body.len() - behind_actors(body)?.len();
    let mut rest = &body[at..];
    if take_uleb(&mut rest)? != heads.len() as u64 {
        return None;
    }
    let hashes = body.len() - rest.len();
    let mut body = body.to_vec();
    let room = body.get_mut(hashes..hashes + heads.len() * size_of::<ChangeHash>())?;
    for (hash, head) in room.chunks_exact_mut(size_of::<ChangeHash>()).zip(heads) {
        hash.copy_from_slice(&head.0);
    }
    Some(chunk(DOCUMENT, &body))
}

/// What stands behind the table of actors of a saved document.
fn behind_actors(mut body: &[u8]) -> Option<&[u8]> {
    for _ in 0..take_uleb(&mut body)? {
        let len = usize::try_from(take_uleb(&mut body)?).ok()?;
        body = body.get(len..)?;
    }
    Some(body)
}

/// Kind and body of a chunk that goes to the end of the bytes, whatever length it says.
fn parts(chunk: &[u8]) -> Option<(u8, &[u8])> {
    let (&kind, mut body) = chunk.get(KIND..)?.split_first()?;
    take_uleb(&mut body)?;
    Some((kind, body))
}

fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    let hashed = match kind {
        COMPRESSED => {
            let mut inflated = Vec::new();
            // What is longer is refused whatever its checksum.
            let _ = DeflateDecoder::new(body).take(4 << 20).read_to_end(&mut inflated);
            labelled(CHANGE, &inflated)
        }
        _ => labelled(kind, body),
    };
    let hash = Sha256::digest(&hashed);
    [&MAGIC[..], &hash[..4], &labelled(kind, body)].concat()
}

fn labelled(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut rest = body.len();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend(body);
    out
}

fn take_uleb(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
