//! The two Automerge versions that the same model runs on.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::frame::Bad;

/// A head, as bytes.
pub type Head = [u8; 32];

/// A scalar of a root map (wire.md 12).
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// An integer.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string scalar.
    Text(String),
    /// What a byte collection keeps under `data`.
    Bytes(Vec<u8>),
    /// A boolean.
    Bool(bool),
    /// Anything that this model does not read.
    Other,
}

/// One version of Automerge, with its documents and its plain `sync::State`.
pub trait Library: Debug + 'static {
    /// A document.
    type Doc: Debug + Clone;
    /// What is assumed of one peer about one document.
    type State: Debug + Clone + Default;

    /// A document without changes.
    fn empty() -> Self::Doc;
    /// A saved document. No bytes at all are an empty one (5.2).
    fn load(saved: &[u8]) -> Result<Self::Doc, Bad>;
    /// All of its history.
    fn save(doc: &Self::Doc) -> Vec<u8>;
    /// Its heads in ascending order.
    fn heads(doc: &Self::Doc) -> Vec<Head>;
    /// Takes over what another document has.
    fn merge(doc: &mut Self::Doc, other: &Self::Doc) -> Result<(), Bad>;
    /// The next sync message, if the state sees a need for one.
    fn generate(doc: &Self::Doc, state: &mut Self::State) -> Option<Vec<u8>>;
    /// Applies a sync message.
    fn receive(doc: &mut Self::Doc, state: &mut Self::State, message: &[u8]) -> Result<(), Bad>;
    /// Whether the bytes are a sync message.
    fn is_message(message: &[u8]) -> bool;
    /// What survives of a state when there was no reply: the shared heads (5.1, step 4).
    fn shared(state: &Self::State) -> Self::State;
    /// Sets a field of the root map, or removes it, in one change by this actor.
    fn put(doc: &mut Self::Doc, actor: [u8; 16], field: &str, value: Option<&Field>);
    /// The scalars of the root map.
    fn fields(doc: &Self::Doc) -> BTreeMap<String, Field>;
}

macro_rules! library {
    ($(#[$doc:meta])* $name:ident, $automerge:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        const _: () = {
            use $automerge::sync::{Message, State, SyncDoc};
            use $automerge::transaction::Transactable;
            use $automerge::{ActorId, Automerge, AutomergeError, ROOT, ReadDoc, ScalarValue, Value};

            impl Library for $name {
                type Doc = Automerge;
                type State = State;

                fn empty() -> Automerge {
                    Automerge::new().with_actor(ActorId::from([0; 16].as_slice()))
                }

                fn load(saved: &[u8]) -> Result<Automerge, Bad> {
                    Automerge::load(saved).map_err(|_| Bad::Automerge)
                }

                fn save(doc: &Automerge) -> Vec<u8> {
                    doc.save()
                }

                fn heads(doc: &Automerge) -> Vec<Head> {
                    let mut heads: Vec<Head> = doc.get_heads().into_iter().map(|head| head.0).collect();
                    heads.sort_unstable();
                    heads
                }

                fn merge(doc: &mut Automerge, other: &Automerge) -> Result<(), Bad> {
                    let merged = doc.merge(&mut other.clone());
                    merged.map(drop).map_err(|_| Bad::Automerge)
                }

                fn generate(doc: &Automerge, state: &mut State) -> Option<Vec<u8>> {
                    // 0.7 panics where it cannot put a single change together again: the task ends, and its process goes on.
                    let generate = std::panic::AssertUnwindSafe(|| doc.generate_sync_message(state));
                    std::panic::catch_unwind(generate).ok().flatten().map(Message::encode)
                }

                fn receive(doc: &mut Automerge, state: &mut State, message: &[u8]) -> Result<(), Bad> {
                    let message = Message::decode(message).map_err(|_| Bad::Automerge)?;
                    doc.receive_sync_message(state, message).map_err(|_| Bad::Automerge)
                }

                fn is_message(message: &[u8]) -> bool {
                    Message::decode(message).is_ok()
                }

                fn shared(state: &State) -> State {
                    State::decode(&state.encode()).unwrap_or_default()
                }

                fn put(doc: &mut Automerge, actor: [u8; 16], field: &str, value: Option<&Field>) {
                    doc.set_actor(ActorId::from(actor.as_slice()));
                    let value = match value {
                        Some(Field::Int(value)) => Some(ScalarValue::Int(*value)),
                        Some(Field::Float(value)) => Some(ScalarValue::F64(*value)),
                        Some(Field::Text(value)) => Some(ScalarValue::Str(value.as_str().into())),
                        Some(Field::Bytes(value)) => Some(ScalarValue::Bytes(value.clone())),
                        Some(Field::Bool(value)) => Some(ScalarValue::Boolean(*value)),
                        Some(Field::Other) => Some(ScalarValue::Null),
                        None => None,
                    };
                    let there = doc.get(ROOT, field).ok().flatten().is_some();
                    let done = doc.transact::<_, _, AutomergeError>(|tx| match value {
                        Some(value) => tx.put(ROOT, field, value),
                        None if there => tx.delete(ROOT, field),
                        None => Ok(()),
                    });
                    drop(done.expect("a field of the root map can be written"));
                }

                fn fields(doc: &Automerge) -> BTreeMap<String, Field> {
                    let read = |value: Value<'_>| match value.into_scalar() {
                        Ok(ScalarValue::Int(value)) => Field::Int(value),
                        Ok(ScalarValue::F64(value)) => Field::Float(value),
                        Ok(ScalarValue::Str(value)) => Field::Text(value.to_string()),
                        Ok(ScalarValue::Bytes(value)) => Field::Bytes(value),
                        Ok(ScalarValue::Boolean(value)) => Field::Bool(value),
                        _ => Field::Other,
                    };
                    let keys = doc.keys(ROOT);
                    let found = keys.filter_map(|key| {
                        let (value, _) = doc.get(ROOT, &key).ok().flatten()?;
                        Some((key, read(value)))
                    });
                    found.collect()
                }
            }
        };
    };
}

library! {
    /// Automerge 0.7, as fielded.
    V07, automerge_0_7
}
library! {
    /// Automerge 0.12, as Peat itself uses.
    V12, automerge
}
