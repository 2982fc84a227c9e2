use std::collections::HashSet;

use peat_proto::automerge::ActorId;
use peat_proto::store::{Batch, Op};
use peat_proto::{DocId, Seq};

use super::*;
use crate::store::disk::DiskStore;

type Home = tempfile::TempDir;

fn home() -> Home {
    let home = tempfile::tempdir().expect("a directory");
    Dir::init(&home.path().join("node")).expect("initialises");
    home
}

fn node(home: &Home) -> PathBuf {
    home.path().join("node")
}

fn actor(dir: &Dir) -> ActorId {
    dir.boot().actor(&dir.peer())
}

/// Opens, writes, closes cleanly.
fn clean_boot(path: &Path) -> ActorId {
    let (dir, mut store) = Dir::open(path).expect("opens");
    write(&mut store);
    Box::new(store).close().expect("the store closes");
    let actor = actor(&dir);
    dir.close().expect("the directory closes");
    actor
}

/// Opens, writes, and ends without a word.
fn killed_boot(path: &Path) -> ActorId {
    let (dir, mut store) = Dir::open(path).expect("opens");
    write(&mut store);
    actor(&dir)
}

fn write(store: &mut DiskStore) {
    let op = Op::Replace {
        doc: DocId::new("a:1").expect("valid"),
        record: peat_proto::store::Record::automerge(peat_proto::Heads::default(), 1, 1),
        chunk: vec![1].into(),
    };
    let batch = Batch { seq: Seq(1), ops: vec![op] };
    store.apply(&[batch]).expect("writes");
}

/// As `cp -a` does. (Running that would hand this process's locks to another one for a moment.)
#[cfg(unix)]
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("creates");
    for entry in fs::read_dir(from).expect("reads") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target).expect("copies");
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let file = File::options().append(true).open(target).expect("opens");
        file.set_modified(modified.expect("a time")).expect("sets");
    }
}

/// Puts the content of each file of a backup into the file of the same name.
fn overwrite(backup: &Path, dir: &Path) {
    for entry in fs::read_dir(backup).expect("reads") {
        let entry = entry.expect("an entry");
        let bytes = fs::read(entry.path()).expect("reads");
        fs::write(dir.join(entry.file_name()), bytes).expect("writes");
    }
}

#[test]
fn a_node_keeps_its_key_and_its_invitation() {
    let home = home();
    let peer = Dir::init(&node(&home)).expect("an existing node is left alone");
    let (dir, store) = Dir::open(&node(&home)).expect("opens");
    assert_eq!(dir.peer(), peer);
    let key = fs::read_to_string(node(&home).join("key")).expect("reads");
    assert_eq!(key, HEXLOWER.encode(&dir.seed()) + "\n");
    let invitation = dir.invitation();
    drop((dir, store));
    let (dir, _store) = Dir::open(&node(&home)).expect("opens");
    assert_eq!(dir.invitation(), invitation);
    let other = tempfile::tempdir().expect("a directory");
    assert_ne!(Dir::init(other.path()).expect("initialises"), peer);
}

/// RFC 8032, section 7.1, test 1.
#[test]
fn the_peer_id_is_the_public_key_of_the_seed() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let home = home();
    fs::write(node(&home).join("key"), format!("{seed}\n")).expect("writes");
    let (dir, _store) = Dir::open(&node(&home)).expect("opens");
    assert_eq!(dir.peer().to_string(), public);
}

#[test]
fn a_second_process_is_locked_out_until_the_first_ends() {
    let home = home();
    let (dir, store) = Dir::open(&node(&home)).expect("opens");
    assert!(matches!(Dir::open(&node(&home)), Err(OpenError::Locked)));
    assert!(matches!(Dir::init(&node(&home)), Err(OpenError::Locked)));
    drop((dir, store));
    Dir::open(&node(&home)).expect("opens");
}

#[test]
fn where_no_node_lives_nothing_is_created() {
    let home = tempfile::tempdir().expect("a directory");
    let missing = home.path().join("missing");
    for path in [home.path(), &missing] {
        assert!(matches!(Dir::open(path), Err(OpenError::NotInitialised)));
    }
    let entries = fs::read_dir(home.path()).expect("reads");
    assert_eq!(entries.count(), 0);
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = home();
    for name in ["key", "invitation"] {
        let path = node(&home).join(name);
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        let created = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(created & 0o777, 0o600, "{name}");
        for exposed in [0o640, 0o604, 0o602] {
            mode(exposed).expect("changes");
            let refused = Dir::open(&node(&home));
            assert!(matches!(refused, Err(OpenError::KeyExposed)), "{name}");
        }
        mode(0o600).expect("changes");
    }
    Dir::open(&node(&home)).expect("opens");
}

#[test]
fn a_node_that_lacks_a_part_is_refused_and_left_alone() {
    let home = home();
    let store = node(&home).join("peat.redb");
    let refused = |name| match Dir::open(&node(&home)) {
        Err(OpenError::Damaged(file)) => assert_eq!(file, name),
        other => panic!("{name}: {other:?}"),
    };
    let bytes = fs::read(&store).expect("reads");
    fs::remove_file(&store).expect("removes");
    refused("peat.redb");
    assert!(!store.exists());
    fs::write(&store, b"").expect("writes");
    refused("peat.redb");
    fs::write(&store, b"not a store, but something that somebody wrote").expect("writes");
    assert!(matches!(Dir::open(&node(&home)), Err(OpenError::Store(_))));
    fs::write(&store, bytes).expect("writes");
    for key in ["", "abc\n", &"g".repeat(64), &"0".repeat(65), &"0".repeat(66)] {
        fs::write(node(&home).join("key"), key).expect("writes");
        refused("key");
    }
}

#[cfg(unix)]
#[test]
fn clean_reopens_go_on_as_the_same_actor() {
    let home = home();
    let first = clean_boot(&node(&home));
    for _ in 0..3 {
        assert_eq!(clean_boot(&node(&home)), first);
    }
}

#[cfg(not(unix))]
#[test]
fn every_boot_is_a_new_actor_where_files_have_no_identity() {
    let home = home();
    assert_ne!(clean_boot(&node(&home)), clean_boot(&node(&home)));
}

#[test]
fn a_boot_after_a_kill_is_a_new_actor_with_a_higher_number() {
    let home = home();
    let mut actors = HashSet::from([clean_boot(&node(&home))]);
    // The first of these goes on after the clean close.
    killed_boot(&node(&home));
    let mut last = 0;
    for _ in 0..3 {
        let (dir, _store) = Dir::open(&node(&home)).expect("opens");
        assert!(dir.boot().number > last);
        last = dir.boot().number;
        assert!(actors.insert(actor(&dir)), "used before");
    }
}

#[cfg(unix)]
#[test]
fn a_copy_of_a_closed_directory_is_another_actor() {
    let home = home();
    let original = clean_boot(&node(&home));
    let copied = home.path().join("copy");
    copy(&node(&home), &copied);
    let from_copy = clean_boot(&copied);
    assert_ne!(from_copy, original);
    assert_eq!(clean_boot(&node(&home)), original, "reading is no change");
    // Both crash, so both count on from the same number.
    let mut actors = HashSet::from([original, from_copy]);
    killed_boot(&copied);
    killed_boot(&node(&home));
    assert!(actors.insert(clean_boot(&copied)));
    assert!(actors.insert(clean_boot(&node(&home))));
}

#[cfg(unix)]
#[test]
fn a_restored_backup_never_uses_an_actor_again() {
    let home = home();
    let backup = home.path().join("backup");
    let mut actors = HashSet::from([clean_boot(&node(&home))]);
    copy(&node(&home), &backup);
    // Numbers that the backup knows nothing of.
    killed_boot(&node(&home));
    for _ in 0..2 {
        assert!(actors.insert(killed_boot(&node(&home))));
    }
    for _ in 0..3 {
        overwrite(&backup, &node(&home));
        assert!(actors.insert(clean_boot(&node(&home))), "in place");
    }
    fs::remove_dir_all(node(&home)).expect("removes");
    copy(&backup, &node(&home));
    assert!(actors.insert(clean_boot(&node(&home))), "as new files");
}

#[cfg(unix)]
#[test]
fn a_mark_counts_once_and_only_unaltered() {
    let home = home();
    let mark = node(&home).join("closed");
    let mut actors = HashSet::from([clean_boot(&node(&home))]);
    let text = fs::read_to_string(&mark).expect("reads");
    killed_boot(&node(&home));
    assert!(!mark.exists());
    fs::write(&mark, &text).expect("writes");
    assert!(actors.insert(clean_boot(&node(&home))), "a mark put back");
    for altered in ["", "\n", "00", "\u{fffd} 1 2 3 4\n"] {
        fs::write(&mark, altered).expect("writes");
        assert!(actors.insert(clean_boot(&node(&home))), "{altered:?}");
    }
    let other = "0".repeat(32) + &fs::read_to_string(&mark).expect("reads")[32..];
    fs::write(&mark, other).expect("writes");
    assert!(actors.insert(clean_boot(&node(&home))), "another nonce");
    fs::write(&mark, b"\xff\xfe").expect("writes");
    assert!(actors.insert(clean_boot(&node(&home))), "not text");
}

#[test]
fn a_mark_left_while_the_store_is_open_does_not_count() {
    let home = home();
    let (dir, store) = Dir::open(&node(&home)).expect("opens");
    let before = actor(&dir);
    dir.close().expect("leaves the mark");
    drop(store);
    assert_ne!(clean_boot(&node(&home)), before);
}

#[test]
fn a_mark_reads_back_and_every_cut_is_none() {
    let mark =
        Mark { nonce: [0xa5; 16], identity: Identity { device: u64::MAX, inode: 7, changed: (-1, 999_999_999) } };
    let text = mark.encode();
    assert_eq!(Mark::decode(&text), Some(mark));
    for cut in 0..text.len() {
        assert_eq!(Mark::decode(&text[..cut]), None, "{cut}");
    }
    assert_eq!(Mark::decode(&format!("{text}\n")), None);
}
