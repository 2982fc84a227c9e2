//! Every input that fuzzing found worth keeping, replayed: see `fuzz/README.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use peat_tests::laws::{self, heap::Counting};

#[global_allocator]
static HEAP: Counting = Counting;

fn fuzz(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(part)
}

/// Automerge's panics are caught by the core; what finding out where they came from takes is not to be counted.
fn panic_briefly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let name = |entry: fs::DirEntry| entry.path().file_stem().expect("a name").to_string_lossy().into_owned();
    entries.map(|entry| name(entry.expect("a directory entry"))).collect()
}

/// Replays a corpus. It is worth its name only if some of it is sound and some is not.
fn replay(name: &str) {
    panic_briefly();
    let (_, law) = laws::ALL.iter().find(|(law, _)| *law == name).expect("a law of this name");
    let directory = fuzz("corpus").join(name);
    let (mut sound, mut refused) = (0, 0);
    for file in names(&directory) {
        let input = fs::read(directory.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let verdict = std::panic::catch_unwind(|| law(&input));
        match verdict.unwrap_or_else(|_| panic!("{} breaks the law", directory.join(&file).display())) {
            true => sound += 1,
            false => refused += 1,
        }
    }
    println!("{name}: {sound} sound, {refused} refused");
    assert!(sound > 0 && refused > 0, "{name}: {sound} sound, {refused} refused");
}

macro_rules! corpora {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

corpora!(
    admit auth_m auth_p batch delta frames negentropy record ticket tombstone tombstones
    v1_body v1_frames v1_handshake v1_ranges v1_sketch world
);

/// As much of everything as the law's limits admit: operations in one change and in many, one long value, many actors.
fn largest() -> Vec<(&'static str, Vec<u8>)> {
    use automerge::transaction::Transactable;
    use automerge::{ActorId, AutoCommit, ObjType, ROOT};
    let doc = |actor: u8| AutoCommit::new().with_actor(ActorId::from([actor; 16]));
    let mut all = Vec::new();
    let mut keep = |name, mut doc: AutoCommit| {
        all.push((name, doc.save()));
        let changes: Vec<u8> =
            doc.get_changes(&[]).into_iter().flat_map(|mut change| change.bytes().to_vec()).collect();
        all.push((name, changes));
    };
    let mut text = doc(1);
    let object = text.put_object(ROOT, "text", ObjType::Text).expect("a put");
    text.splice_text(&object, 0, 0, &"a".repeat(60_000)).expect("a text");
    keep("a text of 60,000 letters in one change", text);
    let mut keys = doc(1);
    for key in 0..20_000 {
        keys.put(ROOT, format!("key {key}"), 1).expect("a put");
    }
    keep("20,000 keys in one change", keys);
    let mut changes = doc(1);
    for value in 0..4_000_u64 {
        for key in 0..8 {
            changes.put(ROOT, format!("{key}"), value).expect("a put");
        }
        changes.commit();
    }
    keep("4,000 changes of 8 values", changes);
    let mut value = doc(1);
    value.put(ROOT, "k", "a".repeat(1_000_000)).expect("a put");
    keep("a value of a megabyte", value);
    let mut many = doc(0);
    many.put(ROOT, "k", 1).expect("a put");
    for actor in 1..64 {
        let mut fork = many.fork().with_actor(ActorId::from([actor; 16]));
        for value in 0..60 {
            fork.put(ROOT, "k", value).expect("a put");
            fork.commit();
        }
        many.merge(&mut fork).expect("a merge");
    }
    keep("64 actors", many);
    all
}

#[test]
fn what_is_as_large_as_it_may_be_is_taken_in_within_the_law() {
    panic_briefly();
    let (_, law) = laws::ALL.iter().find(|(law, _)| *law == "admit").expect("a law of this name");
    for (name, chunks) in largest() {
        assert!(law(&chunks), "{name}: nothing was taken in");
    }
}

#[test]
fn every_law_has_a_target_and_a_corpus_and_is_replayed() {
    let laws: BTreeSet<_> = laws::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz("fuzz_targets")), laws);
    assert_eq!(names(&fuzz("corpus")), laws);
    assert_eq!(REPLAYED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), laws);
}
