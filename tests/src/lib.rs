//! The proving ground: whole fleets of real nodes on virtual time, and the laws of the codecs.

pub mod laws;
pub mod legacy;
pub mod world;
