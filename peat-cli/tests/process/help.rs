//! What `--help` prints is part of the interface. `SNAPSHOTS=overwrite cargo test` accepts a change.

use snapbox::{Assert, Data};

use crate::harness::run;

const COMMANDS: [&str; 16] = [
    "init",
    "id",
    "ticket",
    "put",
    "get",
    "ls",
    "rm",
    "policy",
    "policy show",
    "policy set",
    "import",
    "export",
    "serve",
    "sync",
    "status",
    "demo",
];

fn check(name: &str, args: &[&str]) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_peat"));
    command.args(args).env("COLUMNS", "100").env_remove("PEAT_DIR");
    let printed = run(command, b"");
    let path = format!("{}/tests/process/help/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let expected = Data::read_from(std::path::Path::new(&path), None);
    Assert::new().action_env("SNAPSHOTS").eq(format!("{}\n", printed.ok()), expected);
}

#[test]
fn help_stays_as_it_is() {
    check("peat", &["--help"]);
    for command in COMMANDS {
        let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        check(&command.replace(' ', "-"), &args);
    }
}
