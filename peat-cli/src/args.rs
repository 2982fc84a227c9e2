//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use peat_node::{DocId, PeerId, Ticket};
use peat_smol::Congestion;

use crate::failure::Exit;

/// Keeps documents equal across machines that lose their links.
#[derive(Debug, Parser)]
#[command(name = "peat", version, after_help = after_help(), max_term_width = 100)]
pub(crate) struct Args {
    /// Data directory [env: PEAT_DIR] [default: `peat` in the platform's data directory]
    #[arg(long, global = true, value_name = "DIR", display_order = 100)]
    pub(crate) dir: Option<PathBuf>,
    /// Print results as one JSON object per line, and errors as JSON on standard error
    #[arg(long, global = true, display_order = 101)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

fn after_help() -> String {
    let text = "\
        Data goes to standard output, everything else to standard error. An error is two lines, or with --json one \
        object: {\"error\": {\"code\", \"message\", \"hint\", \"retryable\"}}. While `peat serve` runs on a data directory, \
        the other commands work through it.\n\n\
        Environment: PEAT_DIR; PEAT_LOG, what to log, as in `peat=debug,warn`; NO_COLOR. Empty counts as unset.";
    format!("{text}\n\n{}", Exit::help())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a node in the data directory; one that is there already is left alone
    Init,
    /// Print this node's id
    Id,
    /// Print the ticket of the running `peat serve`: whoever holds it may join
    Ticket,
    /// Make a document equal to a JSON object, of at least one field
    Put {
        /// The document, as `collection:id`
        key: DocId,
        /// A JSON object, or `-` to read it from standard input
        #[arg(value_name = "JSON")]
        value: String,
    },
    /// Print a document as JSON
    Get {
        /// The document, as `collection:id`
        key: DocId,
    },
    /// List documents
    Ls {
        /// Only keys that start with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// List deleted documents instead
        #[arg(long)]
        deleted: bool,
    },
    /// Delete a document
    #[command(after_help = "\
What that means is the policy of the document's collection. Where it deletes softly, the document is hidden, and a put \
brings it back; where it leaves tombstones, the document is gone for good and cannot be written again; other \
collections keep their documents. The deletion reaches every node that the collection does.")]
    Rm {
        /// The document, as `collection:id`
        key: DocId,
        /// Why, for those who ask later; 512 bytes at most
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
    },
    /// Show or change what this node does with which collection
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Read documents from a file
    Import(ImportArgs),
    /// Write a document to standard output
    Export {
        /// The document, as `collection:id`
        key: DocId,
        /// What to write; with --json Automerge bytes are one base64 field
        #[arg(long, value_enum, default_value_t = ExportFormat::Json)]
        format: ExportFormat,
    },
    /// Keep this node running and in sync with its peers
    Serve(ServeArgs),
    /// Connect to a node once, and end when both hold the same; or compare with a connected peer now
    Sync(SyncArgs),
    /// Show what this node holds and whom it is connected to
    Status,
    /// Show two nodes keeping 50 documents of real air traffic equal
    Demo {
        /// What the two nodes run on; mixed is one of each
        #[arg(long, value_enum, default_value_t = DemoTransport::Iroh)]
        transport: DemoTransport,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print the whole policy as a TOML file, or one section of it
    Show {
        /// A collection, `*` for all that have no policy of their own, `shares`, or `hierarchy`
        section: Option<String>,
    },
    /// Change the policy of a collection, the shares or the hierarchy, at once and for good
    #[command(after_help = "\
Of a collection: class=critical|high|normal|low|bulk, mode=full|latest|windowed:SECONDS, direction=upward|downward|lateral|broadcast, \
deletion=tombstone|soft|implicit|immutable, retention=TIME, ttl=TIME|none, and write= and delete= lists of parent, \
child, sibling and other. A TIME is a whole number of s, m, h or d.

Of `shares`, how a busy connection is shared: critical=PERCENT, high=, normal=, low= and bulk=, each at least 2, together at \
most 100.

Of `hierarchy`: parents=IDS, children=IDS and siblings=IDS, lists that take the place of those before; others=parent|child|\
sibling|none for all nodes that are not named, and role=hub|leaf, short for others=child|none.

A collection that is named like one of these two is `collections.shares` or `collections.hierarchy`.")]
    Set {
        /// A collection, `*` for all that have no policy of their own, `shares`, or `hierarchy`
        section: String,
        /// What to change, as in `class=high`; several are changed together or not at all
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<(String, String)>,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every row becomes the document COLLECTION:KEY. Rows of one document are applied in the order of the file, one change \
for each row that differs; fields for which a CSV file has no column are left alone. A CSV cell is true or false, a \
decimal number (no exponent, no leading zeros), or text; an empty cell removes the field, and the key column is always \
text. Lines of JSON are objects that replace the document; without --key each line is {\"key\": ..., \"value\": ...} as \
`peat get --json` prints it. An Automerge file is merged into the one document that --collection and --key name, by \
default the file's name without its endings. Gzip is recognised.

A row that cannot be imported is reported with its line and does not stop the others; the exit code is then 7.")]
pub(crate) struct ImportArgs {
    /// CSV, JSON lines or a saved Automerge document, gzipped or not; `-` for standard input
    pub(crate) file: PathBuf,
    /// The collection of the documents
    #[arg(long)]
    pub(crate) collection: Option<String>,
    /// CSV column or JSON field with the document's id; for an Automerge file the id itself
    #[arg(long, value_name = "COLUMN")]
    pub(crate) key: Option<String>,
    /// What the file is [default: by its ending]
    #[arg(long, value_enum)]
    pub(crate) format: Option<ImportFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportFormat {
    Csv,
    Jsonl,
    Automerge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The current state as JSON
    Json,
    /// The whole history as saved Automerge bytes
    Automerge,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Creates the data directory on first use. The last line on standard output is the command that joins this node from \
another machine. Peers that were joined once are remembered. SIGTERM, SIGINT and SIGHUP write what is unwritten and \
end with exit code 0.")]
pub(crate) struct ServeArgs {
    /// Stay connected to the node of this ticket; may be repeated
    #[arg(long, value_name = "TICKET")]
    pub(crate) join: Vec<Ticket>,
    /// Let this node in; may be repeated
    #[arg(long, value_name = "ID", value_parser = peer)]
    pub(crate) allow: Vec<PeerId>,
    /// Let every node in, also strangers
    #[arg(long)]
    pub(crate) open: bool,
    /// Go over to the policy in this TOML file, and keep it: see `peat policy show`
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// This node's place in the hierarchy, kept like --policy: a leaf has parents, a hub takes all others as children
    #[arg(long, value_enum)]
    pub(crate) role: Option<Place>,
    /// A node above this one, kept like --policy; may be repeated
    #[arg(long, value_name = "ID", value_parser = peer)]
    pub(crate) parent: Vec<PeerId>,
    #[command(flatten)]
    pub(crate) formation: FormationArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// End when standard input ends, so that the process cannot outlive the one that started it
    #[arg(long, hide = true)]
    pub(crate) tied: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FormationArgs {
    /// What to speak: v1 among Peat nodes, v0 with peat-mesh nodes, or the better one that the other side has
    #[arg(long, value_enum, default_value_t = Wires::V1)]
    pub(crate) wire: Wires,
    /// The formation that this node is a member of; its members let each other in
    #[arg(long, value_name = "ID", requires = "secret_file")]
    pub(crate) formation: Option<String>,
    /// File with the formation's secret in base64, readable by its owner alone; `-` for standard input
    #[arg(long, value_name = "FILE", requires = "formation")]
    pub(crate) secret_file: Option<PathBuf>,
    /// How peat-mesh nodes prove their membership: p, as their host runtime does, m, as their node binary does, or off: then
    /// they are let in by --allow or --open
    #[arg(long, value_enum, default_value_t = AuthArg::P)]
    pub(crate) auth: AuthArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wires {
    V0,
    V1,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuthArg {
    P,
    M,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    Leaf,
    Hub,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NetworkArgs {
    /// QUIC by iroh, over plain UDP sockets, or one beside the other; any reaches any
    #[arg(long, value_enum, default_value_t = Transport::Iroh)]
    pub(crate) transport: Transport,
    /// Listen here instead of on a free port of every interface; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<SocketAddr>,
    /// With `--transport both`, where UDP listens; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen_udp: Vec<SocketAddr>,
    /// UDP: `cubic`, or `fixed:RATE` (bits per second, as in 256k) where loss is no congestion; unfair on shared links
    #[arg(long, default_value_t = Congestion::Cubic)]
    pub(crate) congestion: Congestion,
    /// UDP: save every byte; for both sides of a thin link
    #[arg(long)]
    pub(crate) thin: bool,
    /// UDP: send single packets instead of trains (GSO), if connections are lost on shaped links
    #[arg(long)]
    pub(crate) no_offload: bool,
    /// UDP: announce this node and look for peers on the local networks (mDNS)
    #[arg(long)]
    pub(crate) local: bool,
    /// Use the public relays of iroh where no direct path exists
    #[arg(long)]
    pub(crate) relay: bool,
    /// Publish and look up addresses through iroh's public discovery
    #[arg(long)]
    pub(crate) discovery: bool,
    /// Ask the router for a port (UPnP, PCP, NAT-PMP); needs --relay
    #[arg(long, requires = "relay")]
    pub(crate) port_mapper: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    Iroh,
    Udp,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoTransport {
    Iroh,
    Udp,
    Mixed,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with exit code 0 when the document sets of both sides are proven equal. Creates the data directory on first use. \
While a `peat serve` runs on the directory, that one connects, with its own network options. Nobody is joined: a later \
`peat serve` does not connect to the peer by itself.

With --peer, the running `peat serve` compares its documents, or those whose keys start with PREFIX, with a peer that it \
is connected to: whatever the peer is believed to have is forgotten, and no cooldown holds a document back. Documents \
that did not end equal are listed with their outcome: sent, where the peer's wire has no answer; refused, not_routed, \
unreachable or unfinished.")]
pub(crate) struct SyncArgs {
    /// What `peat serve` or `peat ticket` printed on the other side; with --peer the start of keys
    #[arg(value_name = "TICKET|PREFIX", required_unless_present = "peer")]
    pub(crate) target: Option<String>,
    /// Have the running `peat serve` compare with this peer now
    #[arg(long, value_name = "ID", value_parser = peer)]
    pub(crate) peer: Option<PeerId>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

fn peer(text: &str) -> Result<PeerId, &'static str> {
    PeerId::from_hex(text).ok_or("an id is 64 hexadecimal digits, as `peat id` prints it")
}

fn reason(text: &str) -> Result<String, &'static str> {
    if (1..=512).contains(&text.len()) { Ok(text.to_owned()) } else { Err("a text of 1 to 512 bytes") }
}

fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("a setting is KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    const DAY: f64 = 86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= DAY => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds above 0 and up to 86400"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn seconds_are_positive_and_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "NaN", "inf", "1e300", "", "soon"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
