//! The table that fielded peat-mesh peers follow.

use std::time::Duration;

use super::{Class, Deletion, Direction, Mode, Policy, Shares, Table};
use crate::policy::kin::Kins;

/// Time from its last change after which a softly deleted document may be forgotten: 168 h, as long as fielded nodes keep
/// their tombstones.
const SOFT: Duration = Duration::from_secs(168 * 3600);

/// Everything about which fielded peers say nothing else.
const OTHERWISE: Policy = Policy {
    class: Class::Bulk,
    mode: Mode::Full,
    direction: Direction::Broadcast,
    deletion: Deletion::Soft { retention: SOFT },
    ttl: None,
    write: None,
    delete: None,
};

pub(super) fn table() -> Table {
    let mut table = Table { rows: Vec::new(), otherwise: OTHERWISE, shares: Shares::FIELDED };
    classes(&mut table);
    modes(&mut table);
    directions(&mut table);
    deletions(&mut table);
    lifetimes(&mut table);
    // Stored like others. A revoked node must not be able to delete its own revocation.
    change(&mut table, &["certificates", "revocations"], |row| row.delete = Some(Kins::NONE));
    table
}

fn classes(table: &mut Table) {
    change(table, &["commands", "contact_reports", "alerts"], |row| row.class = Class::Critical);
    change(table, &["cells", "nodes", "audit_logs"], |row| row.class = Class::High);
    change(table, &["beacons", "platforms", "tracks"], |row| row.class = Class::Normal);
}

fn modes(table: &mut Table) {
    let latest = [
        "beacons",
        "platforms",
        "tracks",
        "nodes",
        "cells",
        "node_states",
        "squad_summaries",
        "platoon_summaries",
        "company_summaries",
    ];
    change(table, &latest, |row| row.mode = Mode::Latest);
    change(table, &["track_history", "capability_history"], |row| row.mode = Mode::Windowed(300));
}

fn directions(table: &mut Table) {
    change(table, &["nodes", "beacons", "platforms", "summaries"], |row| row.direction = Direction::Upward);
    change(table, &["commands"], |row| row.direction = Direction::Downward);
    change(table, &["cells"], |row| row.direction = Direction::Lateral);
}

fn deletions(table: &mut Table) {
    let tombstone = |seconds| Deletion::Tombstone { retention: Duration::from_secs(seconds) };
    change(table, &["beacons", "platforms"], |row| row.deletion = Deletion::Implicit);
    change(table, &["tracks"], |row| row.deletion = tombstone(3600));
    change(table, &["nodes", "cells"], |row| row.deletion = tombstone(86_400));
    change(table, &["alerts"], |row| row.deletion = tombstone(14_400));
}

/// The preset `default`. Fielded peers apply it only to what they received; here it is the same for everybody.
fn lifetimes(table: &mut Table) {
    for (names, seconds) in [(&["beacons", "node_positions"][..], 600), (&["capabilities"], 7200), (&["cells"], 3600)] {
        change(table, names, |row| row.ttl = Some(Duration::from_secs(seconds)));
    }
    // What goes only by itself must go: as long as fielded peers keep a marker of these.
    change(table, &["platforms"], |row| row.ttl = Some(Duration::from_secs(3600)));
}

fn change(table: &mut Table, collections: &[&str], change: impl Fn(&mut Policy)) {
    for name in collections {
        let mut policy = table.of_collection(name);
        change(&mut policy);
        table.set(name, policy);
    }
}
