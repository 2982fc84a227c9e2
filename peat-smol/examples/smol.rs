//! A node in a smol program of thirty lines. `cargo run -p peat-smol --example smol -- DIR TICKET`

use std::error::Error;
use std::path::PathBuf;

use peat_node::{DocId, Node, Options};
use peat_smol::Udp;
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let mut args = std::env::args().skip(1);
        let dir = PathBuf::from(args.next().ok_or("which directory?")?);
        Node::init(&dir)?;
        let node = Node::open(&dir, Options::default())?;
        let (udp, endpoint) = Udp::bind(node.attach("udp"), peat_smol::Options::default())?;
        let endpoint = smol::spawn(endpoint);

        let ticket = args.next().ok_or("whose ticket?")?.parse()?;
        node.join(&ticket);
        node.put(&DocId::new("notes:smol")?, json!({ "hello": "from smol" })).await?;
        node.level_with(&ticket.peer).await?;
        println!("equal with {}", ticket.peer);

        node.close().await?;
        udp.close().await;
        endpoint.await;
        Ok(())
    })
}
