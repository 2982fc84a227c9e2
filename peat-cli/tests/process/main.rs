//! The command as its users meet it: real processes, real stores, real connections.

mod bad_input;
mod control;
mod crashes;
mod deletion;
mod demo;
mod documents;
mod formation;
mod harness;
mod help;
mod imports;
mod killed;
mod membership;
mod policy;
mod serving;
mod syncing;
