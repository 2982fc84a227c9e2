//! The command as its users meet it: real processes, real stores, real connections.

mod bad_input;
mod control;
mod crashes;
mod demo;
mod documents;
mod harness;
mod help;
mod imports;
mod killed;
mod serving;
mod syncing;
