//! What is derived, and sent in part or never, value by value. The values were computed by another implementation, in another
//! language, after `docs/wire.md`.

use automerge::ChangeHash;
use bytes::Bytes;

use crate::doc::scopes::Scope;
use crate::formation::{Formation, FormationId, FormationSecret};
use crate::heads::Heads;
use crate::id::{DocId, Invitation, PeerId};
use crate::io::{Link, Role, Wire};
use crate::marker::{Marker, Spread, Text};
use crate::policy::kin::{Kin, Kins};
use crate::policy::{Direction, Policy, Table};
use crate::reconcile::{Item, SetKey, State};
use crate::wire::v1::{Assembler, Caps, Handshake, Hello, Incoming, Piece, Proof, Secrets, Summary, Total};

/// `name digits` a line.
const DERIVED: &str = include_str!("../tests/data/v1-derived.txt");

fn formation() -> Formation {
    let id = FormationId::new("alpha").expect("a valid name");
    Formation { id, secret: FormationSecret::from_bytes(&[1; 32]).expect("a secret") }
}

fn body(frame: Bytes) -> Bytes {
    let mut assembler = Assembler::new();
    assembler.push(frame);
    match assembler.next(&Caps::STRANGER) {
        Ok(Some(Incoming::Frame(frame))) => frame.body,
        other => panic!("no frame but {other:?}"),
    }
}

/// The proofs of dialler and acceptor.
fn proofs() -> [Proof; 2] {
    let (a, b) = (PeerId([0xaa; 32]), PeerId([0xbb; 32]));
    let secrets = || Secrets::new(Some(&formation()), [&Invitation([5; 32])]);
    let link = |role| Link { role, wire: Wire::V1, reliable: true, binding: [7; 32], rtt: None };
    let hello =
        |nonce| Hello { least: 1, newest: 1, nonce: [nonce; 32], boot: 3, abilities: Hello::PACKED, largest: 16 << 20 };
    let mut dialler = Handshake::new(&link(Role::Dialled), a, b, secrets(), hello(1));
    let mut acceptor = Handshake::new(&link(Role::Accepted), b, a, secrets(), hello(2));
    dialler.heard_hello(body(acceptor.hello())).expect("a greeting");
    acceptor.heard_hello(body(dialler.hello())).expect("a greeting");
    let proof = |side: &Handshake| Proof::decode(body(side.proof().expect("greeted"))).expect("a proof");
    [proof(&dialler), proof(&acceptor)]
}

/// Everything broadcast, but for three collections: one lateral, one that parents write, one that nobody deletes in.
fn scopes() -> [(&'static str, [u8; 8]); 3] {
    let broadcast =
        Policy { direction: Direction::Broadcast, write: None, delete: None, ..Table::default().otherwise() };
    let lateral = Policy { direction: Direction::Lateral, ..broadcast };
    let orders = Policy { write: Some(Kins::new(&[Kin::Parent])), ..broadcast };
    let mut table = Table::uniform(broadcast);
    table.set("my-notes", lateral);
    table.set("orders", orders);
    table.set("kept", Policy { delete: Some(Kins::NONE), ..broadcast });
    let id = |policy| Scope::of_documents(policy).id(&table);
    [("scope_broadcast", id(&broadcast)), ("scope_lateral", id(&lateral)), ("scope_of_parents", id(&orders))]
}

fn derived() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut note = |name: &str, bytes: &[u8]| all.push((name.to_owned(), bytes.to_vec()));
    note("formation_root", &formation().root());
    let [dialler, acceptor] = proofs();
    note("proof_formation_dialled", &dialler.formation.expect("a member"));
    note("proof_formation_accepted", &acceptor.formation.expect("a member"));
    note("proof_invitation", &dialler.invitation.expect("invited"));

    let keys = [("public", SetKey::public()), ("formation", SetKey::of_formation(&formation()))];
    for (key, set_key) in keys {
        note(&format!("set_key_id_{key}"), &set_key.id());
    }
    let doc = DocId::new("notes:1").expect("a valid name");
    let heads = Heads::new(vec![ChangeHash([1; 32]), ChangeHash([2; 32])]);
    let by = Text::new("node-a").expect("short");
    let marker = Marker { incarnation: 1, lamport: 2, by, at_ms: 3, reason: None, spread: Spread::Bidirectional };
    let encoded = marker.encode();
    let states = [("heads", 0, State::Heads(&heads)), ("marker", marker.incarnation, State::Marker(&encoded))];
    let item = |key: &SetKey, incarnation, state| Item::new(key, &doc, incarnation, state);
    for (state, incarnation, offered) in states {
        note(&format!("item_{state}"), &item(&keys[0].1, incarnation, offered).digest().to_bytes());
        for (key, set_key) in &keys {
            note(&format!("symbol_{state}_{key}"), &item(set_key, incarnation, offered).symbol.to_bytes());
        }
    }
    let [heads, marker] = states.map(|(_, incarnation, offered)| item(&keys[0].1, incarnation, offered).digest());
    note("digest_both", &heads.plus(marker).to_bytes());

    for (name, id) in scopes() {
        note(name, &id);
    }
    note("piece_id", &Piece::id_of(b"a whole document"));
    let total = |count, byte| Total { count, digest: [byte; 32] };
    let summary = Summary { generation: 1, heard: 2, shared: total(100_000, 1), seen: [2; 8], ..Summary::default() };
    note("mark", &summary.mark());
    let one_way = Summary { one_way: Some(total(5, 3)), complete: Some([4; 8]), ..summary };
    note("mark_one_way", &one_way.mark());
    all
}

#[test]
fn derived_values_are_those_that_others_derive() {
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: Vec<String> = derived().iter().map(|(name, bytes)| format!("{name} {}", hexadecimal(bytes))).collect();
    assert!(lines.iter().eq(DERIVED.lines()), "these are derived now:\n{}", lines.join("\n"));
}
