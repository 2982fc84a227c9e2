//! Sets, sketches and ranges against a model, against each other and against the `negentropy` crate.

use std::collections::{BTreeMap, BTreeSet};

use automerge::ChangeHash;
use proptest::prelude::*;

use super::*;
use crate::heads::Heads;
use crate::id::DocId;

/// A document, by number, in one of its states.
type Model = BTreeMap<u32, u32>;

fn doc(number: u32) -> DocId {
    DocId::new(&format!("notes:{number:010}")).expect("a valid name")
}

fn item(key: &SetKey, number: u32, state: u32) -> Item {
    let mut head = [0; 32];
    head[..4].copy_from_slice(&state.to_be_bytes());
    head[4..8].copy_from_slice(&number.to_be_bytes());
    Item::new(key, &doc(number), 0, State::Heads(&Heads::new(vec![ChangeHash(head)])))
}

fn set(model: &Model) -> SymbolSet<u32> {
    let mut set = SymbolSet::default();
    let key = SetKey::public();
    model.iter().for_each(|(number, state)| set.insert(&item(&key, *number, *state), *number));
    set
}

/// Documents `0..size`, of which the first `changed` differ, and on each side so many more.
fn sides(size: u32, changed: u32, ours: u32, theirs: u32) -> (Model, Model) {
    let base = |state: u32| (0..size).map(move |number| (number, if number < changed { state } else { 0 }));
    let extra = |from: u32, count: u32| (from..from + count).map(|number| (number, 0));
    (base(1).chain(extra(1 << 30, ours)).collect(), base(2).chain(extra(1 << 31, theirs)).collect())
}

/// The documents in which two models differ: changed, only in the first, only in the second.
fn truth(ours: &Model, theirs: &Model) -> [BTreeSet<u32>; 3] {
    let changed = ours.iter().filter(|(number, state)| theirs.get(number).is_some_and(|other| other != *state));
    let only = |a: &Model, b: &Model| a.keys().filter(|number| !b.contains_key(number)).copied().collect();
    [changed.map(|(number, _)| *number).collect(), only(ours, theirs), only(theirs, ours)]
}

fn named(difference: &Difference, ours: &SymbolSet<u32>, theirs: &SymbolSet<u32>) -> [BTreeSet<u32>; 3] {
    let name = |set: &SymbolSet<u32>, symbols: &[Symbol]| {
        symbols.iter().map(|symbol| *set.get(symbol).expect("a symbol of this set")).collect()
    };
    [name(ours, &difference.changed), name(ours, &difference.ours), name(theirs, &difference.theirs)]
}

/// Pulls cells until it is decided; the difference, the cells it took and the round trips.
fn by_sketch(ours: &mut SymbolSet<u32>, theirs: &mut SymbolSet<u32>) -> (Option<Difference>, u32, u32) {
    let (symbols, theirs_count) = (ours.len() + theirs.len(), theirs.len());
    let frozen = Frozen::of([theirs], symbols);
    let mut decoder = Decoder::new(Frozen::of([ours], symbols), theirs_count);
    for trips in 1.. {
        let range = decoder.next();
        let cells: Vec<Cell> = range.map(|index| frozen.cell(index)).collect();
        match decoder.extend(&cells) {
            Progress::More => {}
            Progress::Done(difference) => return (Some(difference), decoder.len(), trips),
            Progress::Failed => return (None, decoder.len(), trips),
        }
    }
    unreachable!("a decoder decides")
}

/// Asks for ranges until all are compared; the difference, and how often both sides took turns.
fn by_ranges(ours: &SymbolSet<u32>, theirs: &SymbolSet<u32>) -> (Difference, u32) {
    let (found, turns, _) = asking(Ranges::default(), ours, theirs);
    (found, turns)
}

/// The same, and the most symbols of ours that were looked at in one step.
fn asking(mut ranges: Ranges, ours: &SymbolSet<u32>, theirs: &SymbolSet<u32>) -> (Difference, u32, u64) {
    let (mut found, mut turns, mut most) = (Difference::default(), 0, 0);
    while !ranges.is_done() {
        let asked = ranges.ask();
        assert!(asked.len() <= 64);
        turns += 1;
        for prefix in asked {
            let answer = answer(&[theirs], &prefix);
            let before = ours.visited();
            assert!(ranges.heard(&[ours], prefix, answer));
            most = most.max(ours.visited() - before);
        }
        while ranges.has_work() {
            let before = ours.visited();
            let more = ranges.work(&[ours]);
            most = most.max(ours.visited() - before);
            found.changed.extend(more.changed);
            found.ours.extend(more.ours);
            found.theirs.extend(more.theirs);
        }
    }
    (found, turns, most)
}

/// A hub that has from many what one of them sends: it must not go through all that it has.
#[test]
fn what_flows_one_way_is_found_in_steps_that_follow_their_set_and_not_ours() {
    for (size, changed, ours, theirs) in
        [(0, 0, 100_000, 0), (100, 10, 100_000, 7), (0, 0, 100_000, 1000), (3000, 0, 30_000, 0), (33, 33, 0, 5)]
    {
        let (ours, theirs) = sides(size, changed, ours, theirs);
        let [changed, _, lacking] = truth(&ours, &theirs);
        let (ours, theirs) = (set(&ours), set(&theirs));
        let before = ours.visited();
        let (found, _, most) = asking(Ranges::one_way(), &ours, &theirs);
        assert_eq!(named(&found, &ours, &theirs), [changed, BTreeSet::new(), lacking]);
        // 16 shares of a range of which a leaf of 128 has a part are the longest step.
        assert!(most <= 16 * 128, "{most} in one step");
        // A lookup by symbol and one by name for each of theirs, and of a share for each 32 of them the leaves.
        let visited = ours.visited() - before;
        assert!(visited <= 66 * theirs.len() + 2048, "{visited} for {}", theirs.len());
    }
}

/// RECON-3, on the sets themselves: every size, every difference, either side.
#[test]
fn recon_3_every_difference_is_found_by_ranges_and_every_small_one_by_sketch() {
    for size in [0_u32, 1, 31, 32, 33, 1000, 100_000] {
        for changed in [0, 1, 10, size] {
            for (more, fewer) in [(0, 0), (3, 0), (0, 7), (2, 5)] {
                let changed = changed.min(size);
                let (ours, theirs) = sides(size, changed, more, fewer);
                let expected = truth(&ours, &theirs);
                let (mut ours, mut theirs) = (set(&ours), set(&theirs));
                assert_eq!(ours.digest() == theirs.digest(), expected.iter().all(BTreeSet::is_empty));
                let context = format!("{changed} of {size} changed, {more} and {fewer} more");
                if size < 100_000 || changed < size {
                    let (found, ..) = by_sketch(&mut ours, &mut theirs);
                    let found = found.unwrap_or_else(|| panic!("{context}: no sketch"));
                    assert_eq!(named(&found, &ours, &theirs), expected, "{context}, by sketch");
                }
                let (found, turns) = by_ranges(&ours, &theirs);
                assert_eq!(named(&found, &ours, &theirs), expected, "{context}, by ranges");
                assert!(turns <= 6 + 4 * (changed + more + fewer) / 100, "{context}: {turns} turns");
            }
        }
    }
}

/// The independent oracle: the range-based reconciliation of the `negentropy` crate over the same items.
#[test]
fn negentropy_finds_the_same_difference() {
    for (size, changed, more, fewer) in [(0, 0, 3, 0), (33, 1, 0, 0), (1000, 10, 4, 5), (20_000, 500, 20, 0)] {
        let (ours, theirs) = sides(size, changed, more, fewer);
        let (mut ours, mut theirs) = (set(&ours), set(&theirs));
        let (have, need) = by_negentropy(&ours, &theirs);
        let (sketched, ..) = by_sketch(&mut ours, &mut theirs);
        let expected = Difference::of(have, need);
        assert_eq!(sorted(sketched.expect("a small difference")), sorted(expected.clone()));
        assert_eq!(sorted(by_ranges(&ours, &theirs).0), sorted(expected));
    }
}

fn sorted(mut difference: Difference) -> Difference {
    for part in [&mut difference.changed, &mut difference.ours, &mut difference.theirs] {
        part.sort_unstable();
    }
    difference
}

fn by_negentropy(ours: &SymbolSet<u32>, theirs: &SymbolSet<u32>) -> (Vec<Symbol>, Vec<Symbol>) {
    use negentropy::{Id, Negentropy, NegentropyStorageVector, Storage};
    let storage = |set: &SymbolSet<u32>| {
        let mut storage = NegentropyStorageVector::new();
        for (symbol, _) in set.list(&Prefix::ALL, None, usize::MAX) {
            let id = [symbol.to_bytes(), [0; 16]].concat();
            storage.insert(0, Id::from_slice(&id).expect("32 bytes")).expect("not sealed");
        }
        storage.seal().expect("not sealed");
        storage
    };
    let (ours, theirs) = (storage(ours), storage(theirs));
    let mut client = Negentropy::new(Storage::Borrowed(&ours), 0).expect("no limit");
    let mut server = Negentropy::new(Storage::Borrowed(&theirs), 0).expect("no limit");
    let mut message = client.initiate().expect("once");
    let (mut have, mut need) = (Vec::new(), Vec::new());
    loop {
        let answer = server.reconcile(&message).expect("a valid message");
        match client.reconcile_with_ids(&answer, &mut have, &mut need).expect("a valid answer") {
            Some(next) => message = next,
            None => break,
        }
    }
    let symbol = |id: &Id| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&id.to_bytes()[..16]);
        Symbol::from_bytes(bytes)
    };
    (have.iter().map(symbol).collect(), need.iter().map(symbol).collect())
}

#[test]
fn a_sketch_costs_at_most_two_cells_for_each_difference_and_8_round_trips() {
    for changed in [1, 10, 25, 50, 100, 250, 1000, 2500] {
        let (ours, theirs) = sides(4000, changed, 0, 0);
        let (found, cells, trips) = by_sketch(&mut set(&ours), &mut set(&theirs));
        assert_eq!(found.map(|found| found.changed.len()), Some(changed as usize));
        assert!(cells <= 48.max(4 * changed) && trips <= 8, "{changed} changed: {cells} cells, {trips} trips");
    }
}

#[test]
fn what_is_too_much_for_a_sketch_is_known_early() {
    let (ours, theirs) = sides(30_000, 30_000, 0, 0);
    let (found, cells, _) = by_sketch(&mut set(&ours), &mut set(&theirs));
    assert_eq!(found, None);
    assert!(cells < 3100, "{cells} cells before giving up");
}

#[test]
fn unshared_sets_do_not_matter_where_the_sums_of_the_shared_ones_are_compared() {
    let (shared, _) = sides(500, 0, 0, 0);
    let (left, right): (Model, Model) = shared.iter().partition(|(number, _)| *number % 3 == 0);
    let (mut left, mut right, mut whole) = (set(&left), set(&right), set(&shared));
    whole.insert(&item(&SetKey::public(), 7777, 0), 7777);
    let frozen = Frozen::of([&mut left, &mut right], 1001);
    let mut decoder = Decoder::new(frozen, whole.len());
    let theirs = Frozen::of([&mut whole], 1001);
    let cells: Vec<Cell> = decoder.next().map(|index| theirs.cell(index)).collect();
    let Progress::Done(found) = decoder.extend(&cells) else { panic!("one difference") };
    assert_eq!((found.theirs.len(), found.len()), (1, 1));
    assert_eq!(left.digest().plus(right.digest()), set(&shared).digest());
    let (found, _) = by_ranges(&whole, &left);
    assert_eq!(found.ours.len() as u64, right.len() + 1);
}

#[test]
fn what_was_frozen_stays_as_it_was() {
    let (model, _) = sides(100, 0, 0, 0);
    let mut set = set(&model);
    let frozen = Frozen::of([&mut set], 200);
    let before: Vec<Cell> = (0..frozen.len()).map(|index| frozen.cell(index)).collect();
    for number in 0..50 {
        set.remove(&item(&SetKey::public(), number, 0));
        set.insert(&item(&SetKey::public(), number, 1), number);
    }
    let after: Vec<Cell> = (0..frozen.len()).map(|index| frozen.cell(index)).collect();
    assert_eq!(before, after);
    assert_ne!(before[0], Frozen::of([&mut set], 200).cell(0));
}

#[test]
fn sets_under_different_keys_have_different_symbols_and_equal_digests() {
    let secret = crate::FormationSecret::from_bytes(&[7; 32]).expect("a secret");
    let id = crate::FormationId::new("alpha").expect("a name");
    let key = SetKey::of_formation(&crate::Formation { id, secret });
    assert_ne!(key.id(), SetKey::public().id());
    let (one, other) = (item(&key, 1, 1), item(&SetKey::public(), 1, 1));
    assert!(!one.symbol.is_same_document(&other.symbol));
    let (mut ours, mut theirs) = (SymbolSet::default(), SymbolSet::default());
    ours.insert(&one, 1);
    theirs.insert(&other, 1);
    assert_eq!(ours.digest(), theirs.digest());
}

#[test]
fn name_incarnation_heads_and_marker_all_count() {
    let key = SetKey::public();
    let heads = |byte| Heads::new(vec![ChangeHash([byte; 32])]);
    let (one, two) = (heads(1), heads(2));
    let items = [
        Item::new(&key, &doc(1), 0, State::Heads(&one)),
        Item::new(&key, &doc(1), 0, State::Heads(&two)),
        Item::new(&key, &doc(1), 1, State::Heads(&one)),
        Item::new(&key, &doc(1), 0, State::Marker(&[1; 32])),
        Item::new(&key, &doc(2), 0, State::Heads(&one)),
    ];
    let symbols: BTreeSet<Symbol> = items.iter().map(|item| item.symbol).collect();
    assert_eq!(symbols.len(), items.len());
    let of_first = |item: &&Item| item.symbol.is_same_document(&items[0].symbol);
    assert_eq!(items.iter().filter(of_first).count(), 4, "the name decides the first half");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order of insertions and removals, a set is what its elements make it.
    #[test]
    fn a_set_depends_on_its_elements_alone(steps in prop::collection::vec((0_u32..600, any::<bool>()), 0..2500)) {
        let key = SetKey::public();
        let (mut model, mut moved) = (Model::new(), SymbolSet::default());
        for (number, add) in steps {
            match (add, model.contains_key(&number)) {
                (true, false) => {
                    model.insert(number, 0);
                    moved.insert(&item(&key, number, 0), number);
                }
                (false, true) => {
                    model.remove(&number);
                    moved.remove(&item(&key, number, 0));
                }
                _ => {}
            }
        }
        let mut fresh = set(&model);
        let symbols: BTreeMap<Symbol, u32> =
            model.keys().map(|number| (item(&key, *number, 0).symbol, *number)).collect();
        prop_assert_eq!(moved.len(), symbols.len() as u64);
        prop_assert_eq!(moved.digest(), fresh.digest());
        let listed: Vec<(Symbol, u32)> =
            moved.list(&Prefix::ALL, None, usize::MAX).into_iter().map(|(symbol, value)| (symbol, *value)).collect();
        prop_assert_eq!(&listed, &symbols.clone().into_iter().collect::<Vec<_>>());
        let (a, b) = (Frozen::of([&mut moved], 5000), Frozen::of([&mut fresh], 5000));
        prop_assert!((0..MAX_CELLS).all(|index| a.cell(index) == b.cell(index)));
        for (symbol, value) in &symbols {
            prop_assert_eq!(moved.get(symbol), Some(value));
            prop_assert_eq!(moved.same_document(symbol), Some((symbol, value)));
        }
        for digits in [0, 1, 2, 5, 32] {
            for symbol in symbols.keys().take(20) {
                let prefix = Prefix::new(*symbol, digits).expect("32 at most");
                let inside = symbols.keys().filter(|symbol| prefix.contains(symbol));
                let expected = inside.clone().fold(Share::default(), |share, symbol| {
                    share.plus(Share { sum: *symbol, count: 1 })
                });
                prop_assert_eq!(moved.share(&prefix), expected);
                let behind = moved.list(&prefix, Some(*symbol), 3);
                let expected: Vec<_> = inside.filter(|other| *other > symbol).take(3).collect();
                prop_assert_eq!(behind.iter().map(|(symbol, _)| symbol).collect::<Vec<_>>(), expected);
            }
        }
    }

    /// Whatever cells a peer sends, the decoder decides in bounded work; and if it says that it is done, the difference
    /// explains the cells.
    #[test]
    fn hostile_cells_cost_no_more_than_honest_ones(
        seed in any::<[u8; 32]>(),
        size in 0_u32..300,
        kind in 0_u8..4,
    ) {
        let (ours, theirs) = sides(size, size / 10, 0, 3);
        let (mut ours, mut theirs) = (set(&ours), set(&theirs));
        let symbols = ours.len() + theirs.len();
        let honest = Frozen::of([&mut theirs], symbols);
        let mut decoder = Decoder::new(Frozen::of([&mut ours], symbols), theirs.len());
        let mut rng = crate::Rng::new(seed);
        let mut one = Cell::default();
        one.toggle(Symbol { name: rng.draw(), state: rng.draw() }, 0, 1);
        for _ in 0..100 {
            let range = decoder.next();
            prop_assert!(range.end <= MAX_CELLS && range.start == decoder.len());
            let cells: Vec<Cell> = range.map(|index| match kind {
                // Noise.
                0 => Cell {
                    sum: Symbol { name: rng.draw(), state: rng.draw() },
                    check: rng.draw() as u32,
                    count: rng.draw() as i32,
                },
                // The same symbol everywhere, with the check that makes it seem alone.
                1 => honest.cell(index).plus(Cell { check: cell::spread(one.sum).0, ..one }),
                // One cell in ten is another.
                2 if rng.below(10) == 0 => honest.cell(index + 1),
                // Equal to ours, so that nothing seems to be left.
                3 => Frozen::of([&mut ours], symbols).cell(index),
                _ => honest.cell(index),
            }).collect();
            match decoder.extend(&cells) {
                Progress::More => {}
                Progress::Failed => return Ok(()),
                Progress::Done(difference) => {
                    prop_assert!(difference.len() <= decoder.len() as usize);
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "a decoder decides");
    }

    /// An answer that no set gives is refused, and one that was not asked for does nothing.
    #[test]
    fn hostile_answers_do_not_keep_the_comparison_going(seed in any::<[u8; 32]>()) {
        let (ours, _) = sides(500, 0, 0, 0);
        let ours = set(&ours);
        let mut rng = crate::Rng::new(seed);
        let mut ranges = Ranges::default();
        let mut answers = 0;
        // It claims that everything differs, as deep as it goes.
        while !ranges.is_done() && answers < 3000 {
            for prefix in ranges.ask() {
                answers += 1;
                let shares = [(); 16].map(|()| Share {
                    sum: Symbol { name: rng.draw(), state: rng.draw() },
                    count: rng.below(3),
                });
                let deepest = prefix.digits() == Prefix::MAX_DIGITS;
                prop_assert_eq!(ranges.heard(&[&ours], prefix, Answer::Shares(Box::new(shares))), !deepest);
                prop_assert!(ranges.heard(&[&ours], prefix, Answer::Symbols(Vec::new())), "ignored");
                while ranges.has_work() {
                    prop_assert!(ranges.work(&[&ours]).theirs.is_empty());
                }
            }
        }
        let outside = Symbol { name: 0, state: 1 };
        let mut ranges = Ranges::default();
        prop_assert_eq!(ranges.ask(), vec![Prefix::ALL]);
        prop_assert!(!ranges.heard(&[&ours], Prefix::ALL, Answer::Symbols(vec![outside, outside])));
    }
}

#[test]
fn a_prefix_holds_what_begins_like_it() {
    let symbol = Symbol { name: 0x0123_4567_89ab_cdef, state: 0xfedc_ba98_7654_3210 };
    for digits in 0..=32 {
        let prefix = Prefix::new(symbol, digits).expect("32 at most");
        assert!(prefix.contains(&symbol) && prefix.contains(&prefix.first()));
        assert_eq!(prefix.digits(), digits);
        match prefix.child(symbol.digit(digits.min(31)) as u8) {
            Some(child) => assert_eq!(Some(child), Prefix::new(symbol, digits + 1)),
            None => assert_eq!(digits, 32),
        }
        if digits > 0 {
            let other = Symbol { name: !symbol.name, state: symbol.state };
            assert!(!prefix.contains(&other));
        }
    }
    assert_eq!(Prefix::new(symbol, 33), None);
    assert_eq!(Symbol::from_bytes(symbol.to_bytes()), symbol);
}
