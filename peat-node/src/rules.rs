//! Policy and hierarchy as text: a TOML file, and single settings.
//!
//! A file says only what differs from what fielded nodes do ([`Table::default`]):
//!
//! ```toml
//! [shares]                    # percent of a busy connection; each at least 2, together at most 100
//! critical = 40
//!
//! [hierarchy]                 # without it, everything goes everywhere
//! parents = ["<node id>"]     # and children, siblings
//! others = "child"            # what all nodes are that are not named: parent, child, sibling or none
//!
//! [collections.tracks]
//! class = "high"              # critical, high, normal, low, bulk
//! mode = "latest"             # full, latest, windowed:SECONDS
//! direction = "upward"        # upward, downward, lateral, broadcast
//! deletion = "tombstone"      # tombstone, soft, implicit, immutable
//! retention = "24h"           # of tombstone and soft; s, m, h or d
//! ttl = "none"                # or a time, as in "10m"
//! write = ["child"]           # parent, child, sibling, other; instead of whoever the direction lets send
//! delete = []                 # nobody
//!
//! [collections."*"]           # every collection that is not named
//! ```

use std::fmt::Write;
use std::time::Duration;

use peat_proto::PeerId;
use peat_proto::policy::kin::{Family, Kin, Kins};
use peat_proto::policy::{Class, Deletion, Direction, Mode, Policy, Shares, Table};
use toml::{Table as Toml, Value};

/// Stands for every collection that is not named.
pub const OTHERS: &str = "*";

/// The section of a file that says how a busy connection is shared.
pub const SHARES: &str = "shares";

/// The section of a file that says who stands where.
pub const HIERARCHY: &str = "hierarchy";

/// In front of a collection's name, where it could be mistaken for one of those sections.
const COLLECTION: &str = "collections.";

/// What a node does with which collection, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// What holds for each collection.
    pub table: Table,
    /// The node's place in a hierarchy.
    pub family: Family,
}

/// Why a text is not [`Rules`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRules {
    /// The file is not TOML.
    #[error("not a policy file: {0}")]
    Syntax(String),
    /// A name that means nothing where it stands.
    #[error("`{section}` has no `{key}`; there are {known}")]
    Unknown {
        /// In which section.
        section: String,
        /// The name.
        key: String,
        /// What would mean something.
        known: &'static str,
    },
    /// A value that its name cannot have.
    #[error("`{key}` of `{section}` cannot be `{value}`; it is {wanted}")]
    Value {
        /// In which section.
        section: String,
        /// The name.
        key: String,
        /// The value.
        value: String,
        /// What it can be.
        wanted: &'static str,
    },
    /// Shares that are not within their bounds.
    #[error("the shares are each at least {} and together at most 100 percent", Shares::LEAST)]
    Shares,
}

const SECTIONS: &str = "shares, hierarchy and collections";
const KEYS: &str = "class, mode, direction, deletion, retention, ttl, write and delete";
const CLASSES: &str = "critical, high, normal, low or bulk";
const KINDS: &str = "parents, children, siblings, others and role";
const TIME: &str = "a time in s, m, h or d, as in \"10m\"";
const KIN: &str = "a list of parent, child, sibling and other";

impl Rules {
    /// Reads a file.
    ///
    /// # Errors
    /// [`BadRules`] names the first thing that is wrong; nothing is guessed or left out.
    pub fn parse(text: &str) -> Result<Self, BadRules> {
        let file: Toml = text.parse().map_err(|error: toml::de::Error| BadRules::Syntax(error.message().to_owned()))?;
        let mut rules = Self::default();
        for (section, value) in file {
            let unknown =
                || BadRules::Unknown { section: "the file".to_owned(), key: section.clone(), known: SECTIONS };
            let Value::Table(entries) = value else { return Err(unknown()) };
            match section.as_str() {
                SHARES => rules.set_shares(&entries)?,
                HIERARCHY => set_family(&mut rules.family, &entries)?,
                "collections" => {
                    // First the row that the others start from.
                    let (others, named): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(name, _)| name == OTHERS);
                    for (name, row) in others.into_iter().chain(named) {
                        let Value::Table(row) = row else {
                            let value = row.to_string();
                            return Err(BadRules::Value { section, key: name, value, wanted: "a table" });
                        };
                        rules.set_row(&name, &row)?;
                    }
                }
                _ => return Err(unknown()),
            }
        }
        Ok(rules)
    }

    /// Changes keys of [`SHARES`], of the [`HIERARCHY`], of a collection, or of all others under the name [`OTHERS`]: all
    /// of them or none. A collection of such a name is meant with `collections.` in front of it.
    ///
    /// # Errors
    /// [`BadRules`]; nothing was changed.
    pub fn set(&mut self, section: &str, settings: &[(String, String)]) -> Result<(), BadRules> {
        let value = |key: &str, text: &str| match (section, key) {
            (SHARES, _) => text.parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer),
            (HIERARCHY, "parents" | "children" | "siblings") | (_, "write" | "delete") => {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                Value::Array(names.map(|name| Value::String(name.to_owned())).collect())
            }
            _ => Value::String(text.to_owned()),
        };
        let entries = settings.iter().map(|(key, text)| (key.clone(), value(key, text)));
        let entries = Toml::from_iter(entries);
        match section {
            SHARES => self.set_shares(&entries),
            HIERARCHY => {
                let mut family = self.family.clone();
                set_family(&mut family, &entries)?;
                self.family = family;
                Ok(())
            }
            name => self.set_row(name.strip_prefix(COLLECTION).unwrap_or(name), &entries),
        }
    }

    /// The policy of a collection, or of all others under the name [`OTHERS`].
    #[must_use]
    pub fn of(&self, collection: &str) -> Policy {
        if collection == OTHERS { self.table.otherwise() } else { self.table.of_collection(collection) }
    }

    /// All of them as a file: what [`Self::parse`] reads back.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::from("[shares]\n");
        for class in Class::ALL {
            let _ = writeln!(text, "{} = {}", name_of_class(class), self.table.shares().of(class));
        }
        if self.family != Family::default() {
            text.push_str("\n[hierarchy]\n");
            for (kin, name) in [(Kin::Parent, "parents"), (Kin::Child, "children"), (Kin::Sibling, "siblings")] {
                let peers = self.family.kin.iter().filter(|(_, of)| **of == kin);
                let peers: Vec<String> = peers.map(|(peer, _)| format!("\"{peer}\"")).collect();
                let _ = writeln!(text, "{name} = [{}]", peers.join(", "));
            }
            let _ = writeln!(text, "others = \"{}\"", name_of_kin(self.family.others).replace("other", "none"));
        }
        write_row(&mut text, OTHERS, &self.table.otherwise());
        for (name, row) in self.table.rows() {
            write_row(&mut text, name, &row);
        }
        text
    }

    fn set_shares(&mut self, entries: &Toml) -> Result<(), BadRules> {
        let mut parts = Class::ALL.map(|class| self.table.shares().of(class));
        for (key, value) in entries {
            let class = class(key).ok_or_else(|| BadRules::Unknown {
                section: SHARES.to_owned(),
                key: key.clone(),
                known: CLASSES,
            })?;
            let part = value.as_integer().and_then(|part| u8::try_from(part).ok()).ok_or(BadRules::Shares)?;
            if let Some(slot) = parts.get_mut(class.index()) {
                *slot = part;
            }
        }
        self.table.set_shares(Shares::new(parts).ok_or(BadRules::Shares)?);
        Ok(())
    }

    fn set_row(&mut self, collection: &str, row: &Toml) -> Result<(), BadRules> {
        let mut policy = self.of(collection);
        // The deletion first: its retention is set behind it, whatever the order in the file.
        let (deletion, rest): (Vec<_>, Vec<_>) = row.iter().partition(|(key, _)| *key == "deletion");
        for (key, value) in deletion.into_iter().chain(rest) {
            set_key(&mut policy, collection, key, value)?;
        }
        if collection == OTHERS {
            self.table.set_otherwise(policy);
        } else {
            self.table.set(collection, policy);
        }
        Ok(())
    }
}

fn set_key(policy: &mut Policy, collection: &str, key: &str, value: &Value) -> Result<(), BadRules> {
    let text = value.as_str().unwrap_or_default();
    let bad = |wanted| BadRules::Value {
        section: collection.to_owned(),
        key: key.to_owned(),
        value: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        wanted,
    };
    match key {
        "class" => policy.class = class(text).ok_or_else(|| bad(CLASSES))?,
        "mode" => policy.mode = mode(text).ok_or_else(|| bad("full, latest or windowed:SECONDS"))?,
        "direction" => {
            policy.direction = direction(text).ok_or_else(|| bad("upward, downward, lateral or broadcast"))?;
        }
        "deletion" => {
            let retention = retention(policy.deletion).unwrap_or(Duration::from_secs(168 * 3600));
            policy.deletion = match text {
                "tombstone" => Deletion::Tombstone { retention },
                "soft" => Deletion::Soft { retention },
                "implicit" => Deletion::Implicit,
                "immutable" => Deletion::Immutable,
                _ => return Err(bad("tombstone, soft, implicit or immutable")),
            };
        }
        "retention" => {
            let time = time(text).ok_or_else(|| bad(TIME))?;
            match &mut policy.deletion {
                Deletion::Tombstone { retention } | Deletion::Soft { retention } => *retention = time,
                Deletion::Implicit | Deletion::Immutable => {
                    return Err(bad("there for the deletions tombstone and soft only"));
                }
            }
        }
        "ttl" if text == "none" => policy.ttl = None,
        "ttl" => policy.ttl = Some(time(text).ok_or_else(|| bad(TIME))?),
        "write" => policy.write = Some(kins(value).ok_or_else(|| bad(KIN))?),
        "delete" => policy.delete = Some(kins(value).ok_or_else(|| bad(KIN))?),
        _ => return Err(BadRules::Unknown { section: collection.to_owned(), key: key.to_owned(), known: KEYS }),
    }
    Ok(())
}

/// Each list takes the place of the one before; who stands in a new one is nothing else any more.
fn set_family(family: &mut Family, entries: &Toml) -> Result<(), BadRules> {
    for (key, value) in entries {
        let bad = |wanted| {
            let (section, value) = (HIERARCHY.to_owned(), value.to_string());
            BadRules::Value { section, key: key.clone(), value, wanted }
        };
        let one = match key.as_str() {
            "parents" => Kin::Parent,
            "children" => Kin::Child,
            "siblings" => Kin::Sibling,
            "others" => {
                let name = value.as_str().unwrap_or_default().replace("none", "other");
                family.others = kin(&name).ok_or_else(|| bad("parent, child, sibling or none"))?;
                continue;
            }
            "role" => {
                family.others = match value.as_str() {
                    Some("leaf") => Kin::Other,
                    Some("hub") => Kin::Child,
                    _ => return Err(bad("leaf or hub")),
                };
                continue;
            }
            _ => return Err(BadRules::Unknown { section: HIERARCHY.to_owned(), key: key.clone(), known: KINDS }),
        };
        family.kin.retain(|_, kin| *kin != one);
        let ids = value.as_array().ok_or_else(|| bad("a list of node ids"))?;
        for id in ids {
            let peer = id.as_str().and_then(PeerId::from_hex).ok_or_else(|| bad("a list of node ids"))?;
            family.kin.insert(peer, one);
        }
    }
    Ok(())
}

fn write_row(text: &mut String, name: &str, row: &Policy) {
    // A name is quoted as a TOML string, whatever it contains.
    let _ = writeln!(text, "\n[collections.{}]", Value::String(name.to_owned()));
    let _ = writeln!(text, "class = \"{}\"", name_of_class(row.class));
    let _ = match row.mode {
        Mode::Full => writeln!(text, "mode = \"full\""),
        Mode::Latest => writeln!(text, "mode = \"latest\""),
        Mode::Windowed(seconds) => writeln!(text, "mode = \"windowed:{seconds}\""),
    };
    let direction = match row.direction {
        Direction::Upward => "upward",
        Direction::Downward => "downward",
        Direction::Lateral => "lateral",
        Direction::Broadcast => "broadcast",
    };
    let deletion = match row.deletion {
        Deletion::Tombstone { .. } => "tombstone",
        Deletion::Soft { .. } => "soft",
        Deletion::Implicit => "implicit",
        Deletion::Immutable => "immutable",
    };
    let _ = writeln!(text, "direction = \"{direction}\"\ndeletion = \"{deletion}\"");
    if let Some(retention) = retention(row.deletion) {
        let _ = writeln!(text, "retention = \"{}\"", text_of_time(retention));
    }
    let _ = writeln!(text, "ttl = \"{}\"", row.ttl.map_or_else(|| "none".to_owned(), text_of_time));
    for (key, kins) in [("write", row.write), ("delete", row.delete)] {
        let Some(kins) = kins else { continue };
        let names = Kin::ALL.into_iter().filter(|kin| kins.contains(*kin));
        let names: Vec<String> = names.map(|kin| format!("\"{}\"", name_of_kin(kin))).collect();
        let _ = writeln!(text, "{key} = [{}]", names.join(", "));
    }
}

fn retention(deletion: Deletion) -> Option<Duration> {
    match deletion {
        Deletion::Tombstone { retention } | Deletion::Soft { retention } => Some(retention),
        Deletion::Implicit | Deletion::Immutable => None,
    }
}

fn class(name: &str) -> Option<Class> {
    Class::ALL.into_iter().find(|class| name_of_class(*class) == name)
}

fn name_of_class(class: Class) -> &'static str {
    match class {
        Class::Critical => "critical",
        Class::High => "high",
        Class::Normal => "normal",
        Class::Low => "low",
        Class::Bulk => "bulk",
    }
}

fn kin(name: &str) -> Option<Kin> {
    Kin::ALL.into_iter().find(|kin| name_of_kin(*kin) == name)
}

fn name_of_kin(kin: Kin) -> &'static str {
    match kin {
        Kin::Parent => "parent",
        Kin::Child => "child",
        Kin::Sibling => "sibling",
        Kin::Other => "other",
    }
}

fn kins(value: &Value) -> Option<Kins> {
    let kins: Option<Vec<Kin>> = value.as_array()?.iter().map(|name| kin(name.as_str()?)).collect();
    kins.map(|kins| Kins::new(&kins))
}

fn mode(text: &str) -> Option<Mode> {
    match text {
        "full" => Some(Mode::Full),
        "latest" => Some(Mode::Latest),
        _ => text.strip_prefix("windowed:")?.parse().ok().map(Mode::Windowed),
    }
}

fn direction(text: &str) -> Option<Direction> {
    match text {
        "upward" => Some(Direction::Upward),
        "downward" => Some(Direction::Downward),
        "lateral" => Some(Direction::Lateral),
        "broadcast" => Some(Direction::Broadcast),
        _ => None,
    }
}

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// A whole number of seconds, minutes, hours or days.
fn time(text: &str) -> Option<Duration> {
    let (digits, seconds) = UNITS.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    digits.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// In the largest unit that divides it.
fn text_of_time(time: Duration) -> String {
    let all = time.as_secs();
    let unit = UNITS.into_iter().find(|(_, seconds)| all.is_multiple_of(*seconds));
    let (unit, seconds) = unit.unwrap_or(("s", 1));
    format!("{}{unit}", all / seconds)
}

#[cfg(test)]
mod tests;
