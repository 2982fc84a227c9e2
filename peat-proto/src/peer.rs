//! Connections: who is at the other end, what arrives, and what goes out next.

pub(crate) mod bits;
pub(crate) mod connection;
pub(crate) mod deficits;
pub(crate) mod dial;
pub(crate) mod legacy;
pub(crate) mod streams;
pub(crate) mod watch;
pub(crate) mod window;
