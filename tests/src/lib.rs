//! The proving ground: whole fleets of real nodes on virtual time, the laws of the codecs, and what it all costs.

pub mod costs;
pub mod laws;
pub mod legacy;
pub mod world;
