//! The transport that the command uses: iroh.

use std::time::Instant;

use peat_iroh::{Iroh, Options, Relay};
use peat_node::Node;

use crate::args::NetworkArgs;
use crate::failure::{Code, Failure};
use crate::wait;

/// An endpoint that serves a node.
pub(crate) struct Network(Iroh);

impl Network {
    /// Binds as the arguments say.
    pub(crate) fn attach(node: &Node, args: &NetworkArgs) -> Result<Self, Failure> {
        let mut options = Options::default();
        if !args.listen.is_empty() {
            options.listen.clone_from(&args.listen);
        }
        if args.relay {
            options.relay = Relay::Public;
        }
        options.lookup = args.discovery;
        options.port_mapper = args.port_mapper;
        let bound = Iroh::spawn(node.attach("iroh"), options);
        bound.map(Self).map_err(|error| {
            Failure::new(Code::Network, error, "choose another address with --listen, or stop what uses it")
        })
    }

    /// Waits until the endpoint of a closed node has said farewell to its peers, but not beyond the deadline.
    pub(crate) fn close(self, deadline: Instant) {
        if wait::until(deadline, self.0.close()).is_none() {
            tracing::debug!("some peer did not answer the farewell");
        }
    }
}
