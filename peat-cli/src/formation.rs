//! What `peat serve` speaks, and the formation that it is a member of.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use peat_node::Options;
use peat_node::proto::config::{Auth, Legacy};
use peat_node::proto::wire::v0::Dialect;
use peat_node::proto::{Formation, FormationId, FormationSecret, Wire};

use crate::args::{AuthArg, FormationArgs, Wires};
use crate::failure::{Code, Failure};

/// Longest secret, in bytes of base64.
const MAX_SECRET: u64 = 4096;

/// Sets a node up to speak as the arguments say, and to be a member of their formation.
pub(crate) fn join(args: &FormationArgs, options: &mut Options) -> Result<(), Failure> {
    let formation = match (&args.formation, &args.secret_file) {
        (Some(id), Some(file)) => Some(formation(id, file)?),
        _ => None,
    };
    options.wires = match args.wire {
        Wires::V0 => vec![Wire::V0],
        Wires::V1 => vec![Wire::V1],
        Wires::Both => vec![Wire::V0, Wire::V1],
    };
    if args.wire != Wires::V1 {
        options.config.legacy = Some(Legacy::new(auth(args.auth, formation.as_ref())?));
    }
    options.config.admission.formation = formation;
    Ok(())
}

fn auth(arg: AuthArg, formation: Option<&Formation>) -> Result<Auth, Failure> {
    let dialect = match arg {
        AuthArg::Off => return Ok(Auth::Admission),
        AuthArg::P => Dialect::P,
        AuthArg::M => Dialect::M,
    };
    let formation = formation.cloned().ok_or_else(|| {
        Failure::new(
            Code::Usage,
            "peat-mesh nodes prove that they are members of a formation, and none is given",
            "give --formation and --secret-file, or --auth off to let them in by --allow or --open",
        )
    })?;
    Ok(Auth::Proof { dialect, formation })
}

fn formation(id: &str, file: &Path) -> Result<Formation, Failure> {
    let usage = |error: &dyn std::fmt::Display, hint: &str| Failure::new(Code::Usage, error, hint);
    let id = FormationId::new(id).map_err(|error| usage(&error, "see `peat serve --help`"))?;
    let text = read(file)?;
    let secret = FormationSecret::from_base64(&text).map_err(|error| {
        usage(&error, "the file holds the secret in base64, as in `head -c 32 /dev/urandom | base64`")
    })?;
    Ok(Formation { id, secret })
}

/// Reads a secret from a file that nobody else can read, or from standard input.
fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let outcome = if path == Path::new("-") {
        io::stdin().lock().take(MAX_SECRET).read_to_string(&mut text)
    } else {
        let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
        if exposed(&file).map_err(|error| Failure::file(path, &error))? {
            return Err(Failure::new(
                Code::KeyExposed,
                format!("{} can be read by others", path.display()),
                "run `chmod 600` on it if nobody has copied it",
            ));
        }
        file.take(MAX_SECRET).read_to_string(&mut text)
    };
    outcome.map_err(|error| Failure::file(path, &error))?;
    Ok(text)
}

#[cfg(unix)]
fn exposed(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata()?;
    Ok(metadata.is_file() && metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn exposed(_file: &File) -> io::Result<bool> {
    Ok(false)
}
