use super::*;
use crate::io::Wire;
use crate::wire::v1::Frame;
use crate::{FormationId, FormationSecret};

fn formation(secret: u8) -> Formation {
    let id = FormationId::new("alpha").expect("a valid name");
    Formation { id, secret: FormationSecret::from_bytes(&[secret; 32]).expect("a secret") }
}

fn link(role: Role, binding: u8) -> Link {
    Link { role, wire: Wire::V1, reliable: true, binding: [binding; 32], rtt: None }
}

fn greeting(nonce: u8) -> Hello {
    Hello { least: 1, newest: 1, nonce: [nonce; 32], boot: 3, abilities: Hello::PACKED, largest: 16 << 20 }
}

const A: PeerId = PeerId([0xaa; 32]);
const B: PeerId = PeerId([0xbb; 32]);
const M: PeerId = PeerId([0x99; 32]);

fn members(secret: u8) -> Secrets {
    Secrets::new(Some(&formation(secret)), [])
}

fn dialler(remote: PeerId, binding: u8, secrets: Secrets) -> Handshake {
    Handshake::new(&link(Role::Dialled, binding), A, remote, secrets, greeting(1))
}

fn acceptor(remote: PeerId, binding: u8, secrets: Secrets) -> Handshake {
    Handshake::new(&link(Role::Accepted, binding), B, remote, secrets, greeting(2))
}

fn body(frame: &Bytes) -> Bytes {
    let mut assembler = crate::wire::v1::Assembler::new();
    assembler.push(frame.clone());
    match assembler.next(&crate::wire::v1::Caps::STRANGER) {
        Ok(Some(crate::wire::v1::Incoming::Frame(Frame { body, .. }))) => body,
        other => panic!("no frame but {other:?}"),
    }
}

/// Each side hears what the other says, as the wire in between makes of it.
fn converse(ours: &mut Handshake, theirs: &mut Handshake, tamper: impl Fn(Bytes) -> Bytes) -> [Proven; 2] {
    ours.heard_hello(tamper(body(&theirs.hello()))).expect("a greeting");
    theirs.heard_hello(tamper(body(&ours.hello()))).expect("a greeting");
    let proofs = [theirs.proof().expect("greeted"), ours.proof().expect("greeted")];
    let ours = ours.heard_proof(body(&proofs[0])).expect("a proof");
    let theirs = theirs.heard_proof(body(&proofs[1])).expect("a proof");
    [ours, theirs]
}

const MEMBER: Proven = Proven { formation: true, invitation: None };
const NOTHING: Proven = Proven { formation: false, invitation: None };

#[test]
fn auth_1_two_members_prove_it_to_each_other_in_two_messages() {
    let (mut ours, mut theirs) = (dialler(B, 7, members(1)), acceptor(A, 7, members(1)));
    assert_eq!(converse(&mut ours, &mut theirs, |body| body), [MEMBER, MEMBER]);
    assert_eq!((ours.version(), theirs.version()), (Some(1), Some(1)));
    assert_eq!(ours.peer().map(|hello| hello.boot), Some(3));
}

#[test]
fn auth_1_another_secret_or_none_proves_nothing() {
    for secrets in [members(2), Secrets::default()] {
        let (mut ours, mut theirs) = (dialler(B, 7, members(1)), acceptor(A, 7, secrets));
        assert_eq!(converse(&mut ours, &mut theirs, |body| body), [NOTHING, NOTHING]);
    }
    let other = Formation { id: FormationId::new("beta").expect("a name"), ..formation(1) };
    let (mut ours, mut theirs) = (dialler(B, 7, members(1)), acceptor(A, 7, Secrets::new(Some(&other), [])));
    assert_eq!(converse(&mut ours, &mut theirs, |body| body), [NOTHING, NOTHING], "the name counts too");
}

#[test]
fn an_invitation_admits_who_was_given_it_where_it_was_given_out() {
    let (mine, other) = (Invitation([5; 32]), Invitation([6; 32]));
    let invited = || Secrets::new(None, [&mine]);
    let (mut ours, mut theirs) = (dialler(B, 7, invited()), acceptor(A, 7, Secrets::new(None, [&other, &mine])));
    let [host, guest] = converse(&mut ours, &mut theirs, |body| body);
    assert_eq!((host, guest), (NOTHING, Proven { formation: false, invitation: Some(1) }));
    let (mut ours, mut theirs) = (dialler(B, 7, invited()), acceptor(A, 7, Secrets::new(None, [&other])));
    assert_eq!(converse(&mut ours, &mut theirs, |body| body), [NOTHING, NOTHING]);
    // Who accepts shows no invitation, and proves nothing with one.
    let frame = acceptor(A, 7, invited());
    let mut frame = frame;
    frame.heard_hello(greeting(1).encode()).expect("a greeting");
    assert_eq!(Proof::decode(body(&frame.proof().expect("greeted"))), Ok(Proof::default()));
}

/// AUTH-2: a stranger between two members passes on every byte; each of them sees the stranger as its peer.
#[test]
fn auth_2_a_relayed_proof_is_refused_by_both_sides() {
    let (mut ours, mut theirs) = (dialler(M, 1, members(1)), acceptor(M, 2, members(1)));
    assert_eq!(converse(&mut ours, &mut theirs, |body| body), [NOTHING, NOTHING]);
    // Each of what differs would be enough by itself.
    let (mut ours, mut theirs) = (dialler(B, 1, members(1)), acceptor(A, 2, members(1)));
    assert_eq!(converse(&mut ours, &mut theirs, |body| body), [NOTHING, NOTHING], "the channel");
    let (mut ours, mut theirs) = (dialler(M, 1, members(1)), acceptor(A, 1, members(1)));
    assert_eq!(converse(&mut ours, &mut theirs, |body| body), [NOTHING, NOTHING], "the acceptor");
    let (mut ours, mut theirs) = (dialler(B, 1, members(1)), acceptor(M, 1, members(1)));
    assert_eq!(converse(&mut ours, &mut theirs, |body| body), [NOTHING, NOTHING], "the dialler");
}

#[test]
fn auth_2_a_reflected_proof_is_refused() {
    let mut ours = dialler(B, 7, members(1));
    ours.heard_hello(body(&ours.hello())).expect("its own greeting");
    let own = ours.proof().expect("greeted");
    assert_eq!(ours.heard_proof(body(&own)), Ok(NOTHING));
    // Not even if both sides dialled and believe themselves to be the same.
    let mut mirror = Handshake::new(&link(Role::Dialled, 7), B, A, members(1), greeting(1));
    mirror.heard_hello(body(&ours.hello())).expect("a greeting");
    assert_eq!(ours.heard_proof(body(&mirror.proof().expect("greeted"))), Ok(NOTHING));
}

#[test]
fn auth_2_a_replayed_proof_is_refused() {
    let (mut ours, mut theirs) = (dialler(B, 7, members(1)), acceptor(A, 7, members(1)));
    converse(&mut ours, &mut theirs, |body| body);
    let recorded = (ours.hello(), ours.proof().expect("greeted"));
    let mut later = Handshake::new(&link(Role::Accepted, 7), B, A, members(1), greeting(9));
    later.heard_hello(body(&recorded.0)).expect("a greeting");
    assert_eq!(later.heard_proof(body(&recorded.1)), Ok(NOTHING), "the nonce is another");
    let mut again = acceptor(A, 7, members(1));
    again.heard_hello(body(&recorded.0)).expect("a greeting");
    assert_eq!(again.heard_proof(body(&recorded.1)), Ok(MEMBER), "else it would be the same");
}

/// AUTH-7: whatever is changed in a greeting on its way, down to the versions and abilities, the proofs do not fit.
#[test]
fn auth_7_a_tampered_greeting_is_noticed_by_both_sides() {
    let untouched = greeting(1).encode();
    for at in 0..untouched.len() {
        let (mut ours, mut theirs) = (dialler(B, 7, members(1)), acceptor(A, 7, members(1)));
        let mut changed = untouched.to_vec();
        changed[at] ^= 1;
        ours.heard_hello(body(&theirs.hello())).expect("a greeting");
        let Ok(()) = theirs.heard_hello(changed.into()) else { continue };
        let (one, two) = (ours.proof().expect("greeted"), theirs.proof().expect("greeted"));
        assert_eq!(theirs.heard_proof(body(&one)), Ok(NOTHING), "byte {at}");
        assert_eq!(ours.heard_proof(body(&two)), Ok(NOTHING), "byte {at}");
    }
}

#[test]
fn auth_7_versions_meet_where_they_overlap_and_later_fields_are_skipped() {
    let hello = |least, newest| Hello { least, newest, ..greeting(2) };
    for (least, newest, version) in [(1, 1, Some(1)), (1, 9, Some(1)), (0, 1, Some(1)), (2, 3, None), (0, 0, None)] {
        let mut ours = dialler(B, 7, members(1));
        let heard = ours.heard_hello(hello(least, newest).encode());
        assert_eq!(ours.version(), version);
        let error = HandshakeError::Version { least, newest };
        assert_eq!(heard, version.map_or(Err(error), |_| Ok(())));
        assert_eq!(error.code(), CloseCode::Version);
    }
    let with = |tag: u8| [&greeting(2).encode()[..], &[tag, 3, 1, 2, 3]].concat();
    let mut ours = dialler(B, 7, members(1));
    assert_eq!(ours.heard_hello(with(5).into()), Ok(()), "an optional field");
    let unknown = dialler(B, 7, members(1)).heard_hello(with(4).into());
    assert_eq!(unknown, Err(HandshakeError::Body(BodyError::Unknown { tag: 4 })));
    assert_eq!(unknown.expect_err("refused").code(), CloseCode::Version);
}

#[test]
fn a_greeting_that_comes_again_is_answered_again_and_another_is_refused() {
    let mut ours = dialler(B, 7, members(1));
    assert_eq!(ours.proof(), None);
    let theirs = greeting(2).encode();
    assert_eq!(ours.heard_proof(Bytes::new()), Err(HandshakeError::Early));
    ours.heard_hello(theirs.clone()).expect("a greeting");
    let proof = ours.proof();
    ours.heard_hello(theirs).expect("the same greeting");
    assert_eq!(ours.proof(), proof);
    assert_eq!(ours.heard_hello(greeting(3).encode()), Err(HandshakeError::Changed));
}

#[test]
fn no_secret_is_ever_printed() {
    let printed = format!("{:?}", dialler(B, 7, Secrets::new(Some(&formation(1)), [&Invitation([5; 32])])));
    assert!(printed.contains("Key(..)") && !printed.contains("5, 5, 5"), "{printed}");
}
