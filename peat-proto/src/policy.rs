//! The one table of per-collection policy.

use std::cmp::Ordering;
use std::time::Duration;

use crate::DocId;

mod fielded;
pub mod kin;

use kin::Kins;

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

/// What travels of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Every change.
    Full,
    /// Towards fielded peers a whole snapshot after each change; between Peat nodes every change, so far.
    Latest,
    /// The same as [`Self::Latest`], so far: fielded peers never apply the window, of so many seconds.
    Windowed(u32),
}

/// Which way the documents of a collection travel in a hierarchy. Without one, everything travels everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From children to parents.
    Upward,
    /// From parents to children.
    Downward,
    /// Between siblings.
    Lateral,
    /// Everywhere.
    Broadcast,
}

/// What becomes of a document that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deletion {
    /// A [`Marker`](crate::Marker) takes its place for ever. Fielded peers forget theirs after the retention, which is
    /// shown and not applied.
    Tombstone {
        /// As fielded peers have it.
        retention: Duration,
    },
    /// Its root gets a field `_deleted`; without a further change for the retention, a marker takes its place.
    Soft {
        /// Time from its newest change, by the clock of the change's author.
        retention: Duration,
    },
    /// It cannot be deleted and goes when its time to live is over.
    Implicit,
    /// It cannot be deleted.
    Immutable,
}

/// What holds for the documents of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// Which lane they travel on.
    pub class: Class,
    /// What travels of them.
    pub mode: Mode,
    /// Which way.
    pub direction: Direction,
    /// What becomes of deleted ones.
    pub deletion: Deletion,
    /// Time from its newest change after which a document is over: neither offered nor accepted, and removed. Counted in
    /// whole seconds.
    pub ttl: Option<Duration>,
    /// Whose writes are taken; whoever the direction lets send, if nothing else is said.
    pub write: Option<Kins>,
    /// Whose deletions are taken; whoever may write, if nothing else is said.
    pub delete: Option<Kins>,
}

/// The table: collection names with their policy, one for all others, and how a link is shared.
///
/// Names match with underscores and hyphens alike, because fielded releases write them both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Sorted by name.
    rows: Vec<(Box<str>, Policy)>,
    otherwise: Policy,
    shares: Shares,
}

/// The part of a busy connection, in percent, that each class is sure of while others wait too; together 100 at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares([u8; 5]);

impl Class {
    /// All classes, the most important first.
    pub const ALL: [Self; 5] = [Self::Critical, Self::High, Self::Normal, Self::Low, Self::Bulk];

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize - 1
    }
}

impl Mode {
    /// Whether fielded peers exchange whole snapshots in this mode.
    #[must_use]
    pub const fn is_snapshot(self) -> bool {
        matches!(self, Self::Latest | Self::Windowed(_))
    }
}

impl Policy {
    /// From whom writes are taken.
    #[must_use]
    pub fn writers(&self) -> Kins {
        self.write.unwrap_or_else(|| Kins::sending(self.direction))
    }

    /// From whom deletions are taken.
    #[must_use]
    pub fn deleters(&self) -> Kins {
        self.delete.unwrap_or_else(|| self.writers())
    }
}

impl Shares {
    /// The static table that fielded peers document: no class starves, and the lowest keeps 2 %, which is 640 B/s on a
    /// link of 256 kbit/s.
    pub const FIELDED: Self = Self([40, 30, 20, 8, 2]);

    /// Least part of a class, so that none starves: 2 %.
    pub const LEAST: u8 = 2;

    /// In the order of [`Class::ALL`]; `None` if a part is below [`Self::LEAST`] or all together are above 100.
    #[must_use]
    pub fn new(parts: [u8; 5]) -> Option<Self> {
        let total: u32 = parts.iter().map(|part| u32::from(*part)).sum();
        (total <= 100 && parts.iter().all(|part| *part >= Self::LEAST)).then_some(Self(parts))
    }

    /// The part of a class, in percent.
    #[must_use]
    pub const fn of(&self, class: Class) -> u8 {
        self.0[class.index()]
    }
}

impl Default for Table {
    /// The table that fielded peers follow.
    fn default() -> Self {
        fielded::table()
    }
}

impl Table {
    /// A table with the same policy for every collection.
    #[must_use]
    pub fn uniform(policy: Policy) -> Self {
        Self { rows: Vec::new(), otherwise: policy, shares: Shares::FIELDED }
    }

    /// The policy of a document's collection.
    #[must_use]
    pub fn of(&self, doc: &DocId) -> Policy {
        self.of_collection(doc.collection())
    }

    /// The policy of a collection.
    #[must_use]
    pub fn of_collection(&self, name: &str) -> Policy {
        self.find(name).ok().and_then(|at| self.rows.get(at)).map_or(self.otherwise, |(_, policy)| *policy)
    }

    /// Gives a collection a policy, in place of the one it had.
    pub fn set(&mut self, collection: &str, policy: Policy) {
        match self.find(collection) {
            Ok(at) => {
                if let Some((_, row)) = self.rows.get_mut(at) {
                    *row = policy;
                }
            }
            Err(at) => self.rows.insert(at, (collection.into(), policy)),
        }
    }

    /// Gives a collection a class and leaves the rest of its policy as it is.
    pub fn set_class(&mut self, collection: &str, class: Class) {
        let policy = Policy { class, ..self.of_collection(collection) };
        self.set(collection, policy);
    }

    /// Takes a collection's own policy away: the one for all others holds.
    pub fn unset(&mut self, collection: &str) {
        if let Ok(at) = self.find(collection) {
            self.rows.remove(at);
        }
    }

    /// The policy for collections that have none of their own.
    #[must_use]
    pub fn otherwise(&self) -> Policy {
        self.otherwise
    }

    /// Sets the policy for collections that have none of their own.
    pub fn set_otherwise(&mut self, policy: Policy) {
        self.otherwise = policy;
    }

    /// How a busy connection is shared.
    #[must_use]
    pub fn shares(&self) -> Shares {
        self.shares
    }

    /// Sets how a busy connection is shared.
    pub fn set_shares(&mut self, shares: Shares) {
        self.shares = shares;
    }

    /// The collections with a policy of their own, in order.
    pub fn rows(&self) -> impl Iterator<Item = (&str, Policy)> {
        self.rows.iter().map(|(name, policy)| (&**name, *policy))
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.rows.binary_search_by(|(known, _)| compare(known, name))
    }
}

/// By bytes, with hyphens taken for underscores.
fn compare(a: &str, b: &str) -> Ordering {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
    let pairs = a.bytes().zip(b.bytes());
    // Every document's policy is asked for many times.
    let differing = pairs.filter(|(a, b)| a != b).map(|(a, b)| (plain(a), plain(b))).find(|(a, b)| a != b);
    differing.map_or_else(|| a.len().cmp(&b.len()), |(a, b)| a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> Policy {
        Table::default().of_collection(name)
    }

    #[test]
    fn the_default_table_is_the_fielded_one() {
        assert_eq!(row("alerts").class, Class::Critical);
        assert_eq!(row("contact-reports"), row("contact_reports"));
        assert_eq!(row("contact-reports").direction, Direction::Broadcast);
        assert_eq!(row("cells").class, Class::High);
        assert_eq!(row("cells").direction, Direction::Lateral);
        assert_eq!(row("tracks").mode, Mode::Latest);
        assert_eq!(row("track_history").mode, Mode::Windowed(300));
        assert_eq!(row("nodes").direction, Direction::Upward);
        assert_eq!(row("commands").direction, Direction::Downward);
        assert_eq!(row("beacons").deletion, Deletion::Implicit);
        let day = Duration::from_secs(86_400);
        assert_eq!(row("nodes").deletion, Deletion::Tombstone { retention: day });
        assert!(matches!(row("notes").deletion, Deletion::Soft { .. }));
        assert_eq!((row("notes").class, row("notes").mode), (Class::Bulk, Mode::Full));
        for protected in ["certificates", "revocations"] {
            assert_eq!(row(protected).deleters(), Kins::NONE);
        }
    }

    #[test]
    fn a_row_is_found_replaced_and_taken_away_under_both_spellings() {
        let mut table = Table::default();
        let policy = Policy { class: Class::Low, ..table.otherwise() };
        table.set("my-notes", policy);
        table.set("my_notes", Policy { class: Class::High, ..policy });
        assert_eq!(table.of_collection("my-notes").class, Class::High);
        assert_eq!(table.rows().filter(|(name, _)| name.starts_with("my")).count(), 1);
        table.unset("my_notes");
        assert_eq!(table.of_collection("my-notes"), table.otherwise());
        let names: Vec<&str> = table.rows().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| table.find(name).is_ok()), "sorted: {names:?}");
    }

    #[test]
    fn shares_leave_no_class_without_and_are_no_more_than_the_link() {
        assert_eq!(Shares::new([40, 30, 20, 8, 2]), Some(Shares::FIELDED));
        assert_eq!(Shares::new([50, 30, 20, 8, 2]), None);
        assert_eq!(Shares::new([40, 30, 20, 8, 1]), None);
        assert_eq!(Class::ALL.map(|class| u32::from(Shares::FIELDED.of(class))).iter().sum::<u32>(), 100);
    }
}
