//! The one table of per-collection policy.

use crate::DocId;

/// How important a collection is. The lower number goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Commands, alerts and contact reports.
    Critical = 1,
    /// Membership, and what must be accounted for.
    High = 2,
    /// Positions and other telemetry.
    Normal = 3,
    /// Nothing by default.
    Low = 4,
    /// Everything else.
    Bulk = 5,
}

impl Class {
    /// All classes, the most important first.
    pub const ALL: [Self; 5] = [Self::Critical, Self::High, Self::Normal, Self::Low, Self::Bulk];

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize - 1
    }

    /// The part of a busy connection, in percent, that this class is sure of while more important ones wait too.
    ///
    /// The static table that legacy peers document (40 / 30 / 20 / 8 / 2): no class starves, and the lowest keeps
    /// 2 %, which is 640 B/s on a 256 kbit/s link.
    #[must_use]
    pub const fn share(self) -> u64 {
        match self {
            Self::Critical => 40,
            Self::High => 30,
            Self::Normal => 20,
            Self::Low => 8,
            Self::Bulk => 2,
        }
    }
}

/// What holds for the documents of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// Which lane they travel on.
    pub class: Class,
}

/// The table: collection names with their policy, and one for all others.
///
/// Names match with underscores and hyphens alike, because legacy releases write them both ways.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<(String, Policy)>,
    otherwise: Policy,
}

impl Default for Table {
    /// The table that fielded peers follow.
    fn default() -> Self {
        let class = |class| Policy { class };
        let mut table = Self { rows: Vec::new(), otherwise: class(Class::Bulk) };
        for name in ["commands", "contact_reports", "alerts"] {
            table.set(name, class(Class::Critical));
        }
        for name in ["cells", "nodes", "audit_logs"] {
            table.set(name, class(Class::High));
        }
        for name in ["beacons", "platforms", "tracks"] {
            table.set(name, class(Class::Normal));
        }
        table
    }
}

impl Table {
    /// The policy of a document's collection.
    #[must_use]
    pub fn of(&self, doc: &DocId) -> Policy {
        let name = doc.collection();
        let row = self.rows.iter().find(|(known, _)| same_name(known, name));
        row.map_or(self.otherwise, |(_, policy)| *policy)
    }

    /// Gives a collection a policy, in place of the one it had.
    pub fn set(&mut self, collection: &str, policy: Policy) {
        match self.rows.iter_mut().find(|(known, _)| same_name(known, collection)) {
            Some((_, row)) => *row = policy,
            None => self.rows.push((collection.to_owned(), policy)),
        }
    }

    /// Gives a collection a class, in place of the one it had.
    pub fn set_class(&mut self, collection: &str, class: Class) {
        self.set(collection, Policy { class });
    }
}

fn same_name(a: &str, b: &str) -> bool {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
    a.bytes().map(plain).eq(b.bytes().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_table_is_the_fielded_one() {
        let table = Table::default();
        let class = |name: &str| table.of(&DocId::new(name).expect("valid")).class;
        assert_eq!(class("alerts:1"), Class::Critical);
        assert_eq!(class("contact-reports:1"), Class::Critical);
        assert_eq!(class("cells:1"), Class::High);
        assert_eq!(class("tracks:1"), Class::Normal);
        assert_eq!(class("notes:1"), Class::Bulk);
    }

    #[test]
    fn shares_add_up_to_the_whole_link() {
        assert_eq!(Class::ALL.map(Class::share).iter().sum::<u64>(), 100);
    }
}
