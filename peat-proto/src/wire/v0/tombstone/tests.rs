use super::*;
use crate::wire::v0::{Batch, BatchBuilder, Entry, EntryError, TombstoneBatch, TombstoneBatchBuilder};

fn tombstone(reason: usize) -> Tombstone {
    let marker = Marker {
        incarnation: 0,
        lamport: 42,
        by: Text::new("node-a").expect("a short name"),
        at_ms: 1_700_000_000_000,
        reason: Text::new(&"r".repeat(reason)),
        spread: Spread::Bidirectional,
    };
    let doc = DocId::new("nodes:n1").expect("a valid name");
    let tombstone = Tombstone::of(&doc, &marker);
    assert_eq!((tombstone.doc(), tombstone.marker()), (Ok(doc), marker));
    tombstone
}

fn largest() -> Tombstone {
    let text = |len: usize| "x".repeat(len);
    Tombstone {
        collection: Text::new(&text(512)),
        id: Text::new(&text(512)),
        by: Text::new(&text(256)),
        reason: Text::new(&text(1024)),
        ..tombstone(0)
    }
}

#[test]
fn the_worked_example_byte_for_byte() {
    let encoded = "00056e6f64657300026e310000018bcfe56800000000000000002a00066e6f64652d61000000";
    assert_eq!(hex::encode(tombstone(0).encode()), encoded);
    let frame = format!("0013746f6d6273746f6e65733a6e6f6465733a6e310400000026{encoded}");
    assert_eq!(hex::encode(tombstone(0).frame()), frame);
    let empty = TombstoneBatchBuilder::new(0).frame();
    assert_eq!(hex::encode(empty), "0010746f6d6273746f6e65733a62617463680500000004".to_owned() + "00000000");
}

#[test]
fn limit_3_texts_at_and_above_their_limits() {
    assert_eq!(largest().encoded_len(), Tombstone::MAX_LEN);
    assert_eq!(Tombstone::take(&mut largest().encode()), Ok(largest()));
    assert_eq!(largest().frame().len(), 7 + Label::MAX_KEY + Tombstone::MAX_LEN);
    for (field, limit, at) in
        [(Field::Collection, 512, 0), (Field::Id, 512, 514), (Field::By, 256, 1044), (Field::Reason, 1024, 1302)]
    {
        for len in [limit + 1, 65_535] {
            let mut bytes = largest().encode().to_vec();
            bytes[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
            bytes.splice(at + 2..at + 2, vec![b'x'; len - limit]);
            let error = BadText::TooLong { len, limit };
            assert_eq!(Tombstone::take(&mut bytes.into()), Err(TombstoneError::Text { field, error }));
        }
    }
}

#[test]
fn a_document_is_named_whichever_part_the_colon_is_in() {
    let named =
        |collection, id| Tombstone { collection: Text::new(collection), id: Text::new(id), ..tombstone(0) }.doc();
    let expected = DocId::new("a:b:c").expect("a valid name");
    assert_eq!(named("a", "b:c"), Ok(expected.clone()));
    assert_eq!(named("a:b", "c"), Ok(expected));
    assert_eq!(named("", "c"), Err(BadDocId::EmptyCollection));
    assert_eq!(named("a", ""), Err(BadDocId::EmptyId));
    assert_eq!(named("tombstones", "a:b"), Err(BadDocId::Reserved));
    assert_eq!(largest().doc(), Err(BadDocId::TooLong { len: 1025 }));
}

#[test]
fn a_marker_takes_of_a_tombstone_what_it_has_room_for() {
    let marker = largest().marker();
    assert_eq!((marker.by.as_str().len(), marker.reason.map(|reason| reason.as_str().len())), (128, Some(512)));
    assert_eq!(Tombstone { by: None, ..tombstone(0) }.marker().by.as_str(), "?");
}

#[test]
fn limit_5_a_bad_tombstone_costs_itself_in_both_kinds_of_batch() {
    let good = tombstone(3);
    let mut bad = good.encode().to_vec();
    *bad.last_mut().expect("a direction") = 9;
    let prefixed = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    let error = TombstoneError::Spread { code: 9 };

    let elements = [prefixed(&bad), prefixed(&good.encode())].concat();
    let batch = TombstoneBatch::decode([&2_u32.to_be_bytes()[..], &elements].concat().into()).expect("a sound layout");
    assert!(batch.elements().eq([Err(error), Ok(good.clone())]));

    let mut builder = BatchBuilder::new(1, 2, 5, 4096);
    assert!(builder.push(&Entry::Tombstone(good.clone())));
    let whole = builder.finish();
    let entry = &whole[Batch::HEADER..];
    let mut spoilt = entry.to_vec();
    *spoilt.last_mut().expect("a direction") = 9;
    let header = [&whole[..17], &2_u32.to_be_bytes()].concat();
    let batch = Batch::decode([&header[..], &spoilt, entry].concat().into()).expect("a sound layout");
    assert!(batch.entries().eq([Err(EntryError::Tombstone(error)), Ok(Entry::Tombstone(good))]));
}

#[test]
fn what_stands_behind_tombstones_is_counted_wherever_it_stands() {
    let longer = [&tombstone(3).encode()[..], b"slack"].concat();
    let len = (longer.len() as u32).to_be_bytes();
    let elements = [&2_u32.to_be_bytes()[..], &len, &longer, &len, &longer, b"more"].concat();
    let batch = TombstoneBatch::decode(elements.into()).expect("a sound layout");
    assert_eq!((batch.trailing, batch.elements().flatten().count()), (5 + 5 + 4, 2));

    let entry = [&[0, 1, b'k', 4][..], &len, &longer].concat();
    let header = [&[0; 17][..], &1_u32.to_be_bytes()].concat();
    let batch = Batch::decode([&header[..], &entry, b"more"].concat().into()).expect("a sound layout");
    assert_eq!((batch.trailing, batch.entries().flatten().count()), (5 + 4, 1));
}

#[test]
fn limit_4_a_hundred_thousand_tombstones_travel_in_batches_within_the_budget() {
    const BUDGET: usize = 64 << 10;
    let mut frames = Vec::new();
    let mut builder = TombstoneBatchBuilder::new(BUDGET);
    for n in 0..100_000 {
        let tombstone = tombstone(n % 50);
        if !builder.push(&tombstone) {
            frames.push(std::mem::replace(&mut builder, TombstoneBatchBuilder::new(BUDGET)).frame());
            assert!(builder.push(&tombstone), "one always fits");
        }
    }
    assert!(!builder.is_empty());
    frames.push(builder.frame());
    assert!(frames.iter().all(|frame| frame.len() <= BUDGET));
    let header = Label::Tombstones.header_len();
    let decoded = frames.iter().map(|frame| TombstoneBatch::decode(frame.slice(header..)).expect("we wrote it"));
    assert_eq!(decoded.map(|batch| batch.elements().flatten().count()).sum::<usize>(), 100_000);
    let mut smallest = TombstoneBatchBuilder::new(0);
    assert!(smallest.push(&largest()) && !smallest.push(&tombstone(0)));
}
