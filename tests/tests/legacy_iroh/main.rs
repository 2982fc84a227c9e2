//! A small client of the legacy wire over real iroh on loopback: plain streams, frames made by hand, both dialects.
//!
//! The scenarios are written for anybody who claims to speak that wire; here they run against the model of a fielded peer,
//! and against a Peat node.

mod client;
mod peat;
mod scenarios;
mod served;

use iroh::EndpointAddr;
use peat_tests::legacy::{Config, Dialect, Family, Field, Formation, Member};

use client::Auth;
use peat::Peat;
use scenarios::Subject;
use served::Served;

const FORMATION: &str = "peat";
const SECRET: [u8; 32] = [0x42; 32];

fn auth(dialect: Dialect) -> Auth {
    Some((dialect, Formation::new(FORMATION, &SECRET)))
}

impl Subject for Served {
    fn addr(&self) -> EndpointAddr {
        self.addr.clone()
    }

    async fn put(&self, key: &str, value: i64) {
        let key = key.to_owned();
        self.act(move |member, now| member.put(now, &key, "v", Some(&Field::Int(value)))).await;
    }

    async fn delete(&self, key: &str) {
        let key = key.to_owned();
        self.act(move |member, now| member.bury(now, &key, Some("over"))).await;
    }

    async fn until(&self, key: &str, value: Option<i64>) {
        let key = key.to_owned();
        self.until(move |member| member.fields(&key).get("v").cloned() == value.map(Field::Int)).await;
    }

    async fn dial(&self, client: EndpointAddr) {
        self.dial(client).await;
    }
}

async fn served(family: Family, auth: Auth) -> Served {
    let config = match family {
        Family::NodeBinary => Config::node_binary(),
        Family::HostRuntime => Config::host_runtime(),
    };
    Served::start(Config { auth, ..config }, Member::v07).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_binary_behind_dialect_m() {
    let subject = served(Family::NodeBinary, auth(Dialect::M)).await;
    scenarios::documents(&subject, &auth(Dialect::M)).await;
    scenarios::snapshots(&subject, &auth(Dialect::M)).await;
    scenarios::batches(&subject, &auth(Dialect::M)).await;
    scenarios::deletion(&subject, &auth(Dialect::M)).await;
    scenarios::bad_frames(&subject, &auth(Dialect::M)).await;
    scenarios::strangers(&subject, Dialect::M).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_runtime_behind_dialect_p() {
    let subject = served(Family::HostRuntime, auth(Dialect::P)).await;
    scenarios::a_day(&subject, &auth(Dialect::P), Dialect::P).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_runtime_that_dials() {
    let subject = served(Family::HostRuntime, auth(Dialect::P)).await;
    scenarios::being_dialled(&subject, &auth(Dialect::P)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_authentication() {
    let subject = served(Family::NodeBinary, None).await;
    scenarios::documents(&subject, &None).await;
    scenarios::many_streams(&subject, &None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peat_node_behind_either_dialect() {
    for dialect in [Dialect::M, Dialect::P] {
        let auth = auth(dialect);
        let subject = Peat::start(&auth).await;
        scenarios::a_day(&subject, &auth, dialect).await;
        assert!(subject.counter("skipped").await >= 5, "types that nobody sends are skipped and counted");
        assert!(subject.counter("refused").await >= 3, "what cannot be read is refused and counted");
        assert_eq!(subject.counter("legacy_heartbeats_received").await, 120);
        assert!(subject.counter("legacy_strangers").await >= 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peat_node_that_dials() {
    for dialect in [Dialect::M, Dialect::P] {
        let subject = Peat::start(&auth(dialect)).await;
        scenarios::being_dialled(&subject, &auth(dialect)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peat_node_without_authentication() {
    let subject = Peat::start(&None).await;
    scenarios::documents(&subject, &None).await;
    scenarios::many_streams(&subject, &None).await;
}
