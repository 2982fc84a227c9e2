//! What a collection's name decides (wire.md 10).

use std::time::Duration;

/// The collection of a key: everything before the first colon; without one, all of it (4.1).
#[must_use]
pub fn collection(key: &str) -> &str {
    key.split_once(':').map_or(key, |(collection, _)| collection)
}

/// Collection and id of a key; `None` without a colon.
#[must_use]
pub(super) fn split(key: &str) -> Option<(&str, &str)> {
    key.split_once(':')
}

/// Where the documents of a collection are sent by the hierarchical batch path (10.1), in the order in which the parts of
/// a batch leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To the parent.
    Upward,
    /// To the children.
    Downward,
    /// To the siblings.
    Lateral,
    /// To all.
    Broadcast,
}

/// How the documents of a collection travel (10.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// As whole saved documents.
    LatestOnly,
    /// The same: the window is never applied.
    Windowed,
    /// As Automerge sync messages.
    FullHistory,
}

/// The tables, with names as a release writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Up to rc.30.
    Underscores,
    /// From rc.31 on (16).
    Hyphens,
}

impl Names {
    /// 10.1.
    #[must_use]
    pub fn way(self, key: &str) -> Way {
        match self.plain(collection(key)).as_str() {
            "nodes" | "beacons" | "platforms" | "summaries" => Way::Upward,
            "commands" => Way::Downward,
            "cells" => Way::Lateral,
            _ => Way::Broadcast,
        }
    }

    /// 10.2.
    #[must_use]
    pub fn mode(self, key: &str) -> Mode {
        match self.plain(collection(key)).as_str() {
            "beacons" | "platforms" | "tracks" | "nodes" | "cells" | "node_states" | "squad_summaries"
            | "platoon_summaries" | "company_summaries" => Mode::LatestOnly,
            "track_history" | "capability_history" => Mode::Windowed,
            _ => Mode::FullHistory,
        }
    }

    /// 10.3: 1 goes first.
    #[must_use]
    pub fn class(self, key: &str) -> u8 {
        match self.plain(collection(key)).as_str() {
            "commands" | "contact_reports" | "alerts" => 1,
            "cells" | "nodes" | "audit_logs" => 2,
            "beacons" | "platforms" | "tracks" => 3,
            _ => 5,
        }
    }

    /// How long a marker is kept, where deletions of the collection leave one (10.5).
    #[must_use]
    pub fn marker_ttl(self, key: &str) -> Option<Duration> {
        match self.plain(collection(key)).as_str() {
            "tracks" => Some(Duration::from_secs(3_600)),
            "nodes" | "cells" => Some(Duration::from_secs(86_400)),
            "alerts" => Some(Duration::from_secs(14_400)),
            _ => None,
        }
    }

    /// The default time to live of a received document (10.6). The collection ends at the first `/` or `:` here.
    #[must_use]
    pub fn document_ttl(self, key: &str) -> Option<Duration> {
        match self.plain(key.split(['/', ':']).next().unwrap_or_default()).as_str() {
            "beacons" | "node_positions" => Some(Duration::from_secs(600)),
            "capabilities" => Some(Duration::from_secs(7_200)),
            "cells" => Some(Duration::from_secs(3_600)),
            _ => None,
        }
    }

    /// The name as the tables above have it; a name in the other spelling is no name of theirs.
    fn plain(self, name: &str) -> String {
        match self {
            Self::Underscores => name.to_owned(),
            Self::Hyphens if name.contains('_') => String::new(),
            Self::Hyphens => name.replace('-', "_"),
        }
    }
}

/// What a class may send at once, in percent of one second of the link's bits (10.4). A document larger than that is never
/// sent.
#[must_use]
pub(super) fn burst_percent(class: u8) -> u64 {
    match class {
        1 => 80,
        2 => 60,
        3 => 40,
        4 => 30,
        _ => 20,
    }
}
