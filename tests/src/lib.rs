//! The proving ground: laws of the codecs, and whole fleets of real nodes on virtual time.

pub mod laws;
pub mod world;
