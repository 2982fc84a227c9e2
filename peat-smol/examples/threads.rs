//! A node in a program with plain threads, and no async in sight.
//!
//! `cargo run -p peat-smol --example threads -- DIR [TICKET]`: prints its ticket, or joins the node of one; then every
//! line that is typed goes into a document, and every change of any document is printed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, io, thread};

use peat_node::{DocId, Node, Options};
use peat_smol::Udp;
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("which directory?")?);
    Node::init(&dir)?;
    let node = Node::open(&dir, Options::default())?;
    let udp = Udp::spawn(node.attach("udp"), peat_smol::Options::default())?;
    match args.next() {
        Some(ticket) => node.join(&ticket.parse()?),
        None => println!("{}", node.ticket()),
    }

    let changes = node.subscribe("");
    let printer = thread::spawn(move || {
        for change in changes {
            println!("{} was changed by {:?}", change.doc, change.origin);
        }
    });

    let notes = DocId::new(&format!("notes:{}", node.id()))?;
    for line in io::stdin().lines() {
        // Once this returns, the line survives a crash; it reaches the others when it can.
        node.put(&notes, json!({ "said": line? })).wait()?;
    }

    node.close().wait()?;
    udp.close_blocking();
    printer.join().map_err(|_| "the printer panicked")?;
    Ok(())
}
