//! Structural invariants: what holds of a drained node whatever happened to it. For tests and fuzzing.

use crate::id::{ConnId, DocId};

/// An invariant that does not hold: a fault of this crate, never of its caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule} ({doc:?}, {conn:?})")]
pub struct Violation {
    /// What should have held.
    pub rule: &'static str,
    /// The document concerned, if one is.
    pub doc: Option<DocId>,
    /// The connection concerned, if one is.
    pub conn: Option<ConnId>,
}

impl Violation {
    /// `Ok` if `holds`; otherwise the rule, about a document.
    pub(crate) fn of_doc(holds: bool, rule: &'static str, doc: &DocId) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self { rule, doc: Some(doc.clone()), conn: None }) }
    }

    /// `Ok` if `holds`; otherwise the rule, about a connection and perhaps one of its documents.
    pub(crate) fn of_conn(holds: bool, rule: &'static str, conn: ConnId, doc: Option<&DocId>) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self { rule, doc: doc.cloned(), conn: Some(conn) }) }
    }

    /// `Ok` if `holds`; otherwise the rule, about the whole node.
    pub(crate) fn of_node(holds: bool, rule: &'static str) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self { rule, doc: None, conn: None }) }
    }
}
