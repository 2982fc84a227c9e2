//! `peat status`, `peat id`, `peat ticket`.

use std::fmt;
use std::path::Path;

use peat_node::Node;
use peat_node::proto::{self, Role, Stats};
use serde::Serialize;
use serde_json::json;

use crate::access::{self, unexpected};
use crate::control::{Answer, Peer, Request, Status, Traffic};
use crate::failure::{Code, Failure};
use crate::output::Output;

pub(crate) fn run(dir: &Path, output: &mut Output) -> Result<(), Failure> {
    let report = Report { dir: dir.display().to_string(), status: read(dir)? };
    output.data(&report, &report)
}

pub(crate) fn id(dir: &Path, output: &mut Output) -> Result<(), Failure> {
    let status = read(dir)?;
    output.data(&status.id, &json!({ "id": status.id }))
}

pub(crate) fn ticket(dir: &Path, output: &mut Output) -> Result<(), Failure> {
    let ticket = access::with(dir, |access| {
        if !access.is_serving() {
            return Err(Failure::new(
                Code::NotServing,
                format!("no `peat serve` runs on {}", dir.display()),
                "start one: a ticket holds the addresses where it listens",
            ));
        }
        match access.call(Request::Ticket)? {
            Answer::Ticket { ticket } => Ok(ticket),
            _ => Err(unexpected()),
        }
    })?;
    output.data(&ticket, &json!({ "ticket": ticket }))
}

fn read(dir: &Path) -> Result<Status, Failure> {
    access::with(dir, |access| {
        let Answer::Status(mut status) = access.call(Request::Status)? else {
            return Err(unexpected());
        };
        status.serving = access.is_serving();
        Ok(*status)
    })
}

/// A node's statistics as they cross the control socket. `serving` is for the asker to fill in.
pub(crate) fn of(node: &Node, stats: &Stats) -> Status {
    let peers = stats.peers.iter().map(|peer| Peer {
        id: peer.peer.to_string(),
        dialled: peer.role == Role::Dialled,
        admitted: peer.admitted,
        wire: if peer.legacy.is_some() { "v0" } else { "v1" }.to_owned(),
        level: peer.level,
        behind: peer.behind,
        partitioned: peer.legacy.is_some_and(|legacy| legacy.partitioned),
        suspended: peer.legacy.is_some_and(|legacy| legacy.suspended.is_some()),
        parked: peer.legacy.map_or(0, |legacy| legacy.parked),
        traffic: peer.traffic.into(),
    });
    Status {
        id: node.id().to_string(),
        serving: false,
        documents: stats.documents,
        markers: stats.markers,
        loaded: stats.loaded,
        cache_bytes: stats.cache_bytes as u64,
        edits: stats.edits,
        changes_applied: stats.changes_applied,
        batches: stats.batches,
        refused: stats.refused,
        store_faults: stats.store_faults,
        quarantined: stats.quarantined,
        traffic: stats.traffic.into(),
        counters: stats.counters().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        peers: peers.collect(),
    }
}

impl From<proto::Traffic> for Traffic {
    fn from(traffic: proto::Traffic) -> Self {
        Self {
            frames_sent: traffic.frames_sent,
            frames_received: traffic.frames_received,
            bytes_sent: traffic.bytes_sent,
            bytes_received: traffic.bytes_received,
        }
    }
}

#[derive(Serialize)]
struct Report {
    dir: String,
    #[serde(flatten)]
    status: Status,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, status } = self;
        writeln!(f, "id         {}", status.id)?;
        writeln!(f, "directory  {dir}")?;
        writeln!(f, "serving    {}", if status.serving { "yes" } else { "no" })?;
        write!(f, "documents  {}", status.documents)?;
        if status.markers > 0 {
            write!(f, "\ndeleted    {}, remembered for ever", status.markers)?;
        }
        for (count, what) in [
            (status.quarantined, "documents that the store could not load"),
            (status.store_faults, "store commands that failed"),
            (status.refused, "received changes that were refused"),
        ] {
            if count > 0 {
                write!(f, "\ntrouble    {count} {what}")?;
            }
        }
        for peer in &status.peers {
            let state = match peer {
                Peer { admitted: false, .. } => "not admitted".to_owned(),
                Peer { partitioned: true, .. } => "silent for too long".to_owned(),
                Peer { suspended: true, .. } => "pushes suspended after failures".to_owned(),
                Peer { level: true, .. } => "level".to_owned(),
                Peer { wire, parked: 0, .. } if wire == "v0" => "on the peat-mesh wire".to_owned(),
                Peer { wire, parked, .. } if wire == "v0" => {
                    format!("on the peat-mesh wire, {parked} documents given up")
                }
                Peer { behind, .. } => format!("{behind} documents differ"),
            };
            let Traffic { bytes_sent, bytes_received, .. } = peer.traffic;
            write!(f, "\npeer       {}  {state}  {bytes_sent} B sent  {bytes_received} B received", peer.id)?;
        }
        Ok(())
    }
}
