//! What is said about documents: which differ, and how each is brought to equal heads.

pub(crate) mod backlog;
pub(crate) mod compare;
pub(crate) mod exchange;
pub(crate) mod exclusions;
pub(crate) mod legacy;
pub(crate) mod pieces;
pub mod reconcile;
pub(crate) mod survey;
pub(crate) mod terms;
