//! `peat`: the operator's command for Peat nodes.

mod access;
mod args;
mod control;
mod demo;
mod dir;
mod export;
mod failure;
mod formation;
mod import;
mod net;
mod output;
mod policy;
mod rm;
mod serve;
mod status;
mod sync;
mod wait;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use tracing_subscriber::EnvFilter;

use args::{Args, Command};
use failure::{Code, Failure};
use output::Output;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return misused(&error),
    };
    // A command says itself what went wrong; a node that runs for long is worth listening to. The libraries below warn of
    // what is ordinary here, such as a peer that goes away without a word.
    log(if matches!(args.command, Command::Serve(_)) { "error,peat=warn" } else { "error" });
    let mut output = Output::new(args.json);
    let done = run(args, &mut output);
    // What a command printed before it failed is said too.
    match done.and(output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    let dir = dir::choose(args.dir);
    match args.command {
        Command::Init => init(&dir?, output),
        Command::Id => status::id(&dir?, output),
        Command::Ticket => status::ticket(&dir?, output),
        Command::Put { key, value } => export::put(&dir?, &key, &value, output),
        Command::Get { key } => export::get(&dir?, &key, output),
        Command::Ls { prefix, deleted: false } => export::ls(&dir?, &prefix, output),
        Command::Ls { prefix, deleted: true } => rm::ls(&dir?, &prefix, output),
        Command::Rm { key, reason } => rm::rm(&dir?, &key, reason, output),
        Command::Policy(command) => policy::run(&dir?, &command, output),
        Command::Import(args) => import::run(&dir?, &args, output),
        Command::Export { key, format } => export::export(&dir?, &key, format, output),
        Command::Serve(args) => serve::run(&dir?, &args, output),
        Command::Sync(args) => sync::run(&dir?, &args, output),
        Command::Status => status::run(&dir?, output),
        Command::Demo { transport } => demo::run(transport, output),
    }
}

fn init(dir: &Path, output: &mut Output) -> Result<(), Failure> {
    let id = peat_node::Node::init(dir).map_err(|error| Failure::open(dir, &error))?;
    output.data(id, &json!({ "id": id.to_string(), "dir": dir }))
}

/// Help and version go to standard output; a wrong command line is a failure like any other.
fn misused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first);
    let failure = Failure::new(Code::Usage, message, "see `peat --help`, or `peat COMMAND --help`");
    let json = std::env::args_os().skip(1).take_while(|arg| arg != "--").any(|arg| arg == "--json");
    Output::new(json).failure(&failure);
    failure.exit_code()
}

/// Logs to standard error what `PEAT_LOG` asks for.
fn log(default: &str) {
    let wanted = dir::variable("PEAT_LOG").and_then(|value| value.into_string().ok());
    let filter = EnvFilter::builder().parse_lossy(wanted.as_deref().unwrap_or(default));
    let colours = std::io::stderr().is_terminal() && dir::variable("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
}
