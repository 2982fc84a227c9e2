//! The proving ground: whole fleets of real nodes on virtual time.

pub mod world;
