//! `peat policy`, and the rules that `peat serve` is started with.

use std::path::Path;

use peat_node::proto::policy::kin::Kin;
use peat_node::rules::{HIERARCHY, OTHERS, SHARES};
use peat_node::{Node, ReadError, Rules};
use serde_json::json;

use crate::access::{self, unexpected};
use crate::args::{Place, PolicyCommand, ServeArgs};
use crate::control::{Answer, Request};
use crate::failure::{Code, Failure};
use crate::output::Output;

pub(crate) fn run(dir: &Path, command: &PolicyCommand, output: &mut Output) -> Result<(), Failure> {
    match command {
        PolicyCommand::Show { section } => show(dir, section.as_deref(), output),
        PolicyCommand::Set { section, settings } => {
            let (section, settings) = (section.clone(), settings.clone());
            access::with(dir, |access| access.call(Request::SetRules { section: section.clone(), settings }))?;
            if output.is_json() {
                output.json_line(&json!({ "section": section, "changed": true }))?;
            }
            Ok(())
        }
    }
}

fn show(dir: &Path, section: Option<&str>, output: &mut Output) -> Result<(), Failure> {
    let Answer::Rules { text } = access::with(dir, |access| access.call(Request::Rules))? else {
        return Err(unexpected());
    };
    let text = match section {
        None => text,
        Some(name @ (SHARES | HIERARCHY)) => {
            let heading = format!("[{name}]");
            let sections = text.split("\n\n");
            sections.into_iter().find(|section| section.starts_with(&heading)).unwrap_or_default().to_owned()
        }
        Some(name) => row(&Rules::parse(&text).map_err(|error| Failure::rules(&error))?, name),
    };
    output.data(text.trim_end(), &json!({ "policy": text }))
}

/// The rules of one collection as a file.
fn row(rules: &Rules, name: &str) -> String {
    let mut alone = Rules::default();
    let named: Vec<String> = alone.table.rows().map(|(name, _)| name.to_owned()).collect();
    named.iter().for_each(|name| alone.table.unset(name));
    let policy = rules.of(name);
    if name == OTHERS {
        alone.table.set_otherwise(policy);
        return section(&alone, 1);
    }
    alone.table.set(name, policy);
    section(&alone, 2)
}

/// The `number`th section behind the shares.
fn section(rules: &Rules, number: usize) -> String {
    let text = rules.to_toml();
    text.split("\n\n").nth(number).unwrap_or_default().to_owned()
}

/// Changes one section: all settings or none.
pub(crate) fn change(node: &Node, section: &str, settings: &[(String, String)]) -> Result<(), Failure> {
    let mut rules = node.rules().wait().ok_or(ReadError::Closed)?;
    rules.set(section, settings).map_err(|error| Failure::rules(&error))?;
    set(node, rules)
}

/// Goes over to what the command line of `peat serve` says.
pub(crate) fn adopt(node: &Node, args: &ServeArgs) -> Result<(), Failure> {
    if args.policy.is_none() && args.role.is_none() && args.parent.is_empty() {
        return Ok(());
    }
    let mut rules = match &args.policy {
        None => node.rules().wait().ok_or(ReadError::Closed)?,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
            Rules::parse(&text).map_err(|error| Failure::rules(&error))?
        }
    };
    for parent in &args.parent {
        rules.family.kin.insert(*parent, Kin::Parent);
    }
    match args.role {
        Some(Place::Hub) => rules.family.others = Kin::Child,
        Some(Place::Leaf) => rules.family.others = Kin::Other,
        None => {}
    }
    set(node, rules)
}

fn set(node: &Node, rules: Rules) -> Result<(), Failure> {
    node.set_rules(rules).map_err(|error| {
        Failure::new(
            Code::Store,
            error,
            "check the data directory's permissions and its disk, then run the command again",
        )
    })
}
