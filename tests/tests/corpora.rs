//! Every input that fuzzing found worth keeping, replayed: see `fuzz/README.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use peat_tests::laws::{self, heap::Counting};

#[global_allocator]
static HEAP: Counting = Counting;

fn fuzz(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(part)
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let name = |entry: fs::DirEntry| entry.path().file_stem().expect("a name").to_string_lossy().into_owned();
    entries.map(|entry| name(entry.expect("a directory entry"))).collect()
}

/// Replays a corpus. It is worth its name only if some of it is sound and some is not.
fn replay(name: &str) {
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

#[test]
fn every_law_has_a_target_and_a_corpus_and_is_replayed() {
    let laws: BTreeSet<_> = laws::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz("fuzz_targets")), laws);
    assert_eq!(names(&fuzz("corpus")), laws);
    assert_eq!(REPLAYED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), laws);
}
