//! A node among legacy peers that the tests play.

#[path = "../common/mod.rs"]
mod common;
mod deletion;
mod documents;
mod fielded;
mod policy;
mod proof;
mod requests;
mod streams;

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
