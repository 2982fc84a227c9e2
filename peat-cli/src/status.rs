//! `peat status`, `peat id`, `peat ticket`.

use std::fmt;
use std::path::Path;

use peat_node::proto::policy::Mode;
use peat_node::proto::wire::v0::Dialect;
use peat_node::proto::{self, BreakerState, Contact, Credential, Role, Stats, Wire};
use peat_node::rules::OTHERS;
use peat_node::{Node, Rules};
use serde::Serialize;
use serde_json::json;

use crate::access::{self, unexpected};
use crate::control::{Answer, Modes, Peer, Request, Status, Traffic};
use crate::failure::{Code, Failure};
use crate::output::Output;

/// In front of what the endpoint on plain UDP counts.
const UDP: &str = "udp_";

/// Packets of no more bytes than QUIC needs that were too large for their link.
const OVERSIZED: &str = "udp_oversized";

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
pub(crate) fn of(node: &Node, stats: &Stats, udp: Option<&peat_smol::Stats>, rules: &Rules) -> Status {
    let peers = stats.peers.iter().map(|peer| Peer {
        id: peer.peer.to_string(),
        dialled: peer.role == Role::Dialled,
        admitted: peer.admitted,
        wire: match peer.wire {
            Wire::V0 => "v0".to_owned(),
            Wire::V1 => "v1".to_owned(),
        },
        auth: peer.credential.map(|credential| auth(credential).to_owned()),
        level: peer.level,
        behind: peer.behind,
        left_out: peer.left_out,
        partition: peer.legacy.map(|legacy| partition(legacy.contact).to_owned()),
        breaker: peer.legacy.map(|legacy| breaker(legacy.breaker).to_owned()),
        parked: peer.legacy.map_or(0, |legacy| legacy.parked),
        in_flight: peer.in_flight as u64,
        window: peer.window as u64,
        traffic: peer.traffic.into(),
    });
    let rows = std::iter::once((OTHERS, rules.table.otherwise())).chain(rules.table.rows());
    let own = stats.counters().into_iter().map(|(name, count)| (name.to_owned(), count));
    let of_udp = udp.into_iter().flat_map(peat_smol::Stats::counters);
    let of_udp = of_udp.map(|(name, count)| (format!("{UDP}{name}"), count));
    Status {
        id: node.id().to_string(),
        serving: false,
        documents: stats.documents,
        markers: stats.markers,
        loaded: stats.loaded,
        cache_bytes: stats.cache_bytes as u64,
        remembered: stats.remembered,
        max_admitted: stats.max_admitted,
        guests: stats.guests,
        max_guests: stats.max_guests,
        edits: stats.edits,
        changes_applied: stats.changes_applied,
        batches: stats.batches,
        refused: stats.refused,
        store_faults: stats.store_faults,
        quarantined: stats.quarantined,
        traffic: stats.traffic.into(),
        modes: rows.map(|(name, policy)| (name.to_owned(), modes(policy.mode))).collect(),
        counters: own.chain(of_udp).collect(),
        peers: peers.collect(),
    }
}

fn modes(mode: Mode) -> Modes {
    let set = match mode {
        Mode::Full => "full".to_owned(),
        Mode::Latest => "latest".to_owned(),
        Mode::Windowed(seconds) => format!("windowed:{seconds}"),
    };
    let v0 = if mode.is_snapshot() { "snapshot" } else { "full" };
    Modes { set, v0: v0.to_owned(), v1: "full".to_owned() }
}

fn auth(credential: Credential) -> &'static str {
    match credential {
        Credential::Id => "id",
        Credential::Open => "open",
        Credential::Invitation => "invitation",
        Credential::Formation => "formation",
        Credential::Dialect(Dialect::P) => "p",
        Credential::Dialect(Dialect::M) => "m",
        Credential::Off => "off",
    }
}

fn partition(contact: Contact) -> &'static str {
    match contact {
        Contact::Connected => "connected",
        Contact::Partitioned => "partitioned",
        Contact::Recovering => "recovering",
    }
}

fn breaker(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open { .. } => "open",
        BreakerState::HalfOpen => "half_open",
    }
}

impl From<proto::Traffic> for Traffic {
    fn from(traffic: proto::Traffic) -> Self {
        Self {
            frames_sent: traffic.frames_sent,
            frames_received: traffic.frames_received,
            bytes_sent: traffic.bytes_sent,
            bytes_received: traffic.bytes_received,
            data_sent: traffic.data_sent,
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
        let Status { remembered, max_admitted, guests, max_guests, .. } = status;
        write!(f, "\nadmitted   {remembered} remembered of {max_admitted} at most")?;
        if *guests > 0 {
            write!(f, ", {guests} by one invitation of {max_guests}")?;
        }
        let oversized = status.counters.get(OVERSIZED).copied().unwrap_or_default();
        for (count, what) in [
            (status.quarantined, "documents that the store could not load"),
            (status.store_faults, "store commands that failed"),
            (status.refused, "received changes that were refused"),
            (oversized, "packets for which a link is too narrow: QUIC needs an MTU of 1,228 bytes, with IPv6 1,248"),
        ] {
            if count > 0 {
                write!(f, "\ntrouble    {count} {what}")?;
            }
        }
        if status.peers.iter().any(|peer| peer.wire == "v0") {
            let pushed = status.modes.iter().filter(|(_, modes)| modes.v0 == "snapshot");
            let pushed: Vec<&str> = pushed.map(|(name, _)| name.as_str()).collect();
            write!(f, "\nsnapshot   {}: pushed whole to peat-mesh nodes", pushed.join(" "))?;
        }
        for peer in &status.peers {
            let Traffic { bytes_sent, bytes_received, .. } = peer.traffic;
            let (wire, auth) = (&peer.wire, peer.auth.as_deref().unwrap_or("-"));
            let state = state(peer);
            write!(f, "\npeer       {}  {wire}  {auth}  {state}  ", peer.id)?;
            if peer.left_out > 0 {
                write!(f, "{} left out because refused  ", peer.left_out)?;
            }
            write!(f, "{bytes_sent} B sent  {bytes_received} B received")?;
        }
        Ok(())
    }
}

/// The most important thing to say of a peer.
fn state(peer: &Peer) -> String {
    match (peer.partition.as_deref(), peer.breaker.as_deref()) {
        _ if !peer.admitted => "not admitted".to_owned(),
        (Some("partitioned"), _) => "silent for too long".to_owned(),
        (Some("recovering"), _) => "heard again after silence".to_owned(),
        (_, Some("open")) => "pushes suspended after failures".to_owned(),
        (_, Some("half_open")) => "pushes tried again after failures".to_owned(),
        _ if peer.parked > 0 => format!("{} documents given up", peer.parked),
        _ if peer.level => "level".to_owned(),
        (Some(_), _) => "under way".to_owned(),
        _ => format!("{} documents differ", peer.behind),
    }
}
