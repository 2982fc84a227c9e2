//! A Peat node on a real endpoint that speaks the legacy wire and no other.

use std::net::Ipv4Addr;

use iroh::{EndpointAddr, EndpointId};
use peat_iroh::Iroh;
use peat_node::proto::config::{Auth as Proof, Legacy};
use peat_node::proto::{Formation, FormationId, FormationSecret, Wire, wire};
use peat_node::{DocId, Node, Options, PeerId, Ticket};
use peat_tests::legacy::Dialect;
use serde_json::json;

use super::client::{Auth, within};
use super::scenarios::Subject;
use super::{FORMATION, SECRET};

/// The node runs until this is dropped.
pub(crate) struct Peat {
    node: Node,
    _iroh: Iroh,
    addr: EndpointAddr,
}

impl Peat {
    pub(crate) async fn start(auth: &Auth) -> Self {
        let mut options = Options::default();
        options.wires = vec![Wire::V0];
        let proof = match auth {
            None => Proof::Admission,
            Some((dialect, _)) => {
                let dialect = match dialect {
                    Dialect::M => wire::v0::Dialect::M,
                    Dialect::P => wire::v0::Dialect::P,
                };
                let id = FormationId::new(FORMATION).expect("a valid name");
                let secret = FormationSecret::from_bytes(&SECRET).expect("it is not empty");
                Proof::Proof { dialect, formation: Formation { id, secret } }
            }
        };
        // Without a proof only whom the admission names is let in: here everybody.
        options.config.admission.open = auth.is_none();
        options.config.legacy = Some(Legacy::new(proof));
        let node = Node::in_memory(options);
        let listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
        let iroh = Iroh::bind(node.attach("iroh"), peat_iroh::Options { listen, ..Default::default() }).await;
        let iroh = iroh.expect("loopback is there");
        let id = EndpointId::from_bytes(&node.id().0).expect("a key");
        let addr = iroh.addrs().iter().copied().fold(EndpointAddr::new(id), EndpointAddr::with_ip_addr);
        Self { node, _iroh: iroh, addr }
    }

    /// What the node counts under this name.
    pub(crate) async fn counter(&self, name: &str) -> u64 {
        let stats = self.node.stats().await.expect("the node runs");
        let found = stats.counters().into_iter().find(|(counter, _)| *counter == name);
        found.map(|(_, count)| count).expect("a counter of this name")
    }
}

impl Subject for Peat {
    fn addr(&self) -> EndpointAddr {
        self.addr.clone()
    }

    async fn put(&self, key: &str, value: i64) {
        self.node.put(&doc(key), json!({ "v": value })).await.expect("durable");
    }

    async fn delete(&self, key: &str) {
        self.node.delete(&doc(key), Some("over")).await.expect("durable");
    }

    async fn until(&self, key: &str, value: Option<i64>) {
        let mut changes = self.node.subscribe(key);
        let holds = async {
            loop {
                let found = self.node.get(&doc(key)).await.expect("readable");
                if found.and_then(|found| found["v"].as_i64()) == value {
                    return;
                }
                changes.next_async().await.expect("the node runs");
            }
        };
        within(holds).await;
    }

    async fn dial(&self, client: EndpointAddr) {
        let addrs = client.ip_addrs().copied().collect();
        self.node.join(&Ticket { peer: PeerId(*client.id.as_bytes()), addrs, invitation: None });
    }
}

fn doc(key: &str) -> DocId {
    DocId::new(key).expect("a valid name")
}
