//! What is said about documents: which differ, and how each is brought to equal heads.

pub(crate) mod compare;
pub(crate) mod exchange;
pub(crate) mod legacy;
pub mod reconcile;
pub(crate) mod survey;
