//! Which data directory a command works on.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use etcetera::base_strategy::{BaseStrategy, choose_native_strategy};

use crate::failure::{Code, Failure};

/// `--dir`, else `PEAT_DIR`, else `peat` in the platform's data directory. An empty variable counts as unset.
pub(crate) fn choose(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(dir) = given.or_else(|| variable("PEAT_DIR").map(PathBuf::from)) {
        return Ok(dir);
    }
    let native = choose_native_strategy().map_err(|error| {
        Failure::new(
            Code::Usage,
            format!("the platform's data directory is not known: {error}"),
            "give --dir or set PEAT_DIR",
        )
    })?;
    Ok(native.data_dir().join("peat"))
}

/// An environment variable that is set and not empty.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
