//! Our responder against the library that legacy peers use.

use std::collections::BTreeSet;

use bytes::Bytes;
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use peat_proto::Rng;
use peat_proto::wire::v0::negentropy::{ItemId, Responder, date_of};

type Items = BTreeSet<(u64, ItemId)>;

fn item(n: u64) -> ItemId {
    *blake3::hash(&n.to_be_bytes()).as_bytes()
}

fn library(items: &Items) -> Negentropy<'static, NegentropyStorageVector> {
    let mut storage = NegentropyStorageVector::new();
    for (timestamp, id) in items {
        storage.insert(*timestamp, Id::from_byte_array(*id)).expect("storage takes items");
    }
    storage.seal().expect("storage is sealed once");
    Negentropy::owned(storage, 0).expect("no limit")
}

/// What an initiator learns: what only it has, and what only the other side has; and in how many rounds.
fn reconcile(theirs: &Items, ours: impl Fn(u64) -> Items) -> (BTreeSet<ItemId>, BTreeSet<ItemId>, usize) {
    let mut initiator = library(theirs);
    let mut message = Bytes::from(initiator.initiate().expect("a first message"));
    let date = date_of(message.clone()).expect("a message").unwrap_or_default();
    let mut responder = Responder::new(ours(date));
    let (mut have, mut need) = (Vec::new(), Vec::new());
    for round in 1.. {
        let answer = responder.answer(message).expect("an answer");
        match initiator.reconcile_with_ids(&answer, &mut have, &mut need).expect("it reads our answer") {
            Some(next) => message = next.into(),
            None => {
                let set = |ids: Vec<Id>| ids.into_iter().map(|id| id.to_bytes()).collect();
                return (set(have), set(need), round);
            }
        }
    }
    unreachable!("the responder ends it")
}

#[test]
fn recon_1_an_initiator_that_dates_by_its_own_clock_learns_just_what_differs() {
    const NOW: u64 = 1_700_000_000;
    for size in [0_u64, 1, 2, 31, 32, 33, 100, 1000, 10_000] {
        for (only_theirs, only_ours) in [(0, 0), (1, 0), (0, 1), (10, 10), (size, 0), (0, size), (size, size)] {
            let common = size.saturating_sub(only_theirs.min(size));
            let theirs: Items = (0..common + only_theirs).map(|n| (NOW, item(n))).collect();
            let ours = |date| (0..common).chain(1_000_000..1_000_000 + only_ours).map(|n| (date, item(n))).collect();
            let (have, need, rounds) = reconcile(&theirs, ours);
            assert_eq!(have, (common..common + only_theirs).map(item).collect());
            assert_eq!(need, (1_000_000..1_000_000 + only_ours).map(item).collect());
            // 10,000 items are lists of fewer than 32 after three splits by 16.
            assert!(rounds <= 4, "{size} items, {only_theirs} and {only_ours} differ: {rounds} rounds");
            if only_theirs + only_ours == 0 {
                assert_eq!(rounds, 1, "equal sets are settled at once");
            }
        }
    }
}

#[test]
fn answers_are_those_of_the_library_whatever_the_dates() {
    let mut rng = Rng::new([3; 32]);
    for round in 0..200 {
        let size = [3, 30, 40, 300, 2000][round % 5];
        let mut items = |dates: u64, share: u64| -> Items {
            let all: Vec<u64> = (0..size).filter(|_| rng.below(4) < share).collect();
            all.into_iter().map(|n| (1 + item(n)[0] as u64 % dates, item(n))).collect()
        };
        let dates = [1, 2, 50][round % 3];
        let (theirs, ours) = (items(dates, 3), items(dates, 3));
        let (mut initiator, mut other) = (library(&theirs), library(&ours));
        let mut responder = Responder::new(ours.iter().copied());
        let mut message = initiator.initiate().expect("a first message");
        loop {
            let expected = other.reconcile(&message).expect("the library answers");
            let answer = responder.answer(Bytes::from(message)).expect("an answer");
            assert_eq!(answer, expected, "round {round}");
            let next = initiator.reconcile_with_ids(&answer, &mut Vec::new(), &mut Vec::new());
            match next.expect("it reads our answer") {
                Some(next) => message = next,
                None => break,
            }
        }
    }
}

#[test]
fn an_answer_stays_in_proportion_to_items_and_message() {
    let items: Items = (0..Responder::MAX_ITEMS as u64).map(|n| (7, item(n))).collect();
    let nobody = library(&Items::new()).initiate().expect("a first message");
    let listed = Responder::new(items.iter().copied()).answer(nobody.into()).expect("an answer");
    assert_eq!(listed.len(), 5 + 2 + 32 * Responder::MAX_ITEMS);
    // As many ranges as are read, each about the same number of items and with a wrong fingerprint.
    let mut message = vec![0x61];
    for range in 0..8192_u32 {
        let prefix = (range << 3).to_be_bytes();
        message.extend([if range == 0 { 8 } else { 1 }, 2, prefix[2], prefix[3], 1]);
        message.extend([0; 16]);
    }
    let answer = Responder::new(items).answer(message.clone().into()).expect("an answer");
    assert!(answer.len() <= 3 * message.len() + (32 + 32) * Responder::MAX_ITEMS, "{}", answer.len());
}
