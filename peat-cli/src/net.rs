//! The transport that the command uses.
