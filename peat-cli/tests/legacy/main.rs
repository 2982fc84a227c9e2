//! The independent client of the legacy wire, over real iroh, against `peat serve --wire v0` in a process of its own.

#[path = "../../../tests/tests/legacy_iroh/client.rs"]
#[allow(dead_code, reason = "the tests of the library use all of it")]
mod client;
#[path = "../process/harness.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod harness;
#[path = "../../../tests/tests/legacy_iroh/scenarios.rs"]
#[allow(dead_code, reason = "the tests of the library use all of it")]
mod scenarios;

use std::fs;
use std::path::{Path, PathBuf};

use iroh::{EndpointAddr, EndpointId};
use peat_node::{PeerId, Ticket};
use peat_tests::legacy::{Dialect, Formation};
use serde_json::json;
use tempfile::TempDir;

use client::{Auth, within};
use harness::{Ended, Serve, node, peat, peat_json, serve};
use scenarios::Subject;

const FORMATION: &str = "peat";
/// 32 times 0x42, in base64.
const SECRET: &str = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=\n";

/// A running `peat serve`; its application is `peat put`, `peat rm` and `peat get`.
struct Process {
    serve: Serve,
    dir: TempDir,
}

impl Process {
    fn start(dialect: Dialect) -> Self {
        let dir = node();
        let file = secret(dir.path());
        let auth = match dialect {
            Dialect::M => "m",
            Dialect::P => "p",
        };
        let file = file.to_str().expect("UTF-8");
        let args = ["--wire", "v0", "--auth", auth, "--formation", FORMATION, "--secret-file", file];
        Self { serve: serve(dir.path(), &args), dir }
    }

    /// One command, which does not hold up what else the test does.
    async fn run(&self, args: &[&str]) -> Ended {
        let dir = self.dir.path().to_owned();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        tokio::task::spawn_blocking(move || peat(&dir, args)).await.expect("it ends")
    }

    fn counter(&self, name: &str) -> u64 {
        peat_json(self.dir.path(), ["status"]).json()["counters"][name].as_u64().expect("a counter of this name")
    }
}

impl Subject for Process {
    fn addr(&self) -> EndpointAddr {
        let ticket: Ticket = self.serve.ticket.parse().expect("its own ticket");
        let id = EndpointId::from_bytes(&ticket.peer.0).expect("a key");
        ticket.addrs.iter().copied().fold(EndpointAddr::new(id), EndpointAddr::with_ip_addr)
    }

    async fn put(&self, key: &str, value: i64) {
        self.run(&["put", key, &json!({ "v": value }).to_string()]).await.ok();
    }

    async fn delete(&self, key: &str) {
        self.run(&["rm", key, "--reason", "over"]).await.ok();
    }

    async fn until(&self, key: &str, value: Option<i64>) {
        let holds = async {
            loop {
                let got = self.run(&["get", key]).await;
                let found = (got.code == Some(0)).then(|| got.json()["v"].as_i64()).flatten();
                if found == value {
                    return;
                }
            }
        };
        within(holds).await;
    }

    async fn dial(&self, client: EndpointAddr) {
        let addrs = client.ip_addrs().copied().collect();
        let ticket = Ticket { peer: PeerId(*client.id.as_bytes()), addrs, invitation: None };
        let dir = self.dir.path().to_owned();
        // It ends once both are level, which nobody waits for.
        tokio::task::spawn_blocking(move || peat(&dir, ["sync", &ticket.to_string(), "--timeout", "10"]));
    }
}

fn secret(dir: &Path) -> PathBuf {
    let file = dir.join("secret");
    fs::write(&file, SECRET).expect("written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    }
    file
}

fn auth(dialect: Dialect) -> Auth {
    Some((dialect, Formation::new(FORMATION, &[0x42; 32])))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_process_does_what_every_speaker_of_the_legacy_wire_must() {
    for dialect in [Dialect::P, Dialect::M] {
        let auth = auth(dialect);
        let subject = Process::start(dialect);
        scenarios::a_day(&subject, &auth, dialect).await;
        for refused in ["legacy_windowed_refused", "legacy_reserved_refused", "legacy_requests_refused"] {
            assert_eq!(subject.counter(refused), 1, "{refused}");
        }
        assert_eq!(subject.counter("legacy_acks_received"), 1);
        assert_eq!(subject.counter("legacy_heartbeats_received"), 120);
        assert!(subject.counter("legacy_strangers") >= 1);
        subject.serve.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_process_that_dials_does_too() {
    let subject = Process::start(Dialect::P);
    scenarios::being_dialled(&subject, &auth(Dialect::P)).await;
    subject.serve.end();
}
