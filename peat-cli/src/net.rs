//! The transports that the command can use.

use std::time::Instant;

use peat_iroh::{Iroh, Relay};
use peat_node::Node;
use peat_smol::{Congestion, Meter, Profile, Udp};

use crate::args::{NetworkArgs, Transport};
use crate::failure::{Code, Failure};
use crate::wait;

/// The endpoints that serve a node.
pub(crate) struct Network {
    udp: Option<Udp>,
    iroh: Option<Iroh>,
}

impl Network {
    /// Binds as the arguments say.
    pub(crate) fn attach(node: &Node, args: &NetworkArgs) -> Result<Self, Failure> {
        if let Some((option, transport)) = misfit(args) {
            let error = format!("{option} is for another transport and would do nothing");
            return Err(Failure::new(
                Code::Usage,
                error,
                format!("add `--transport {transport}`, or leave {option} out"),
            ));
        }
        let mut network = Self { udp: None, iroh: None };
        // The first that is attached dials first.
        if args.transport != Transport::Iroh {
            network.udp = Some(Udp::spawn(node.attach("udp"), udp(args)).map_err(unbound)?);
        }
        if args.transport != Transport::Udp {
            network.iroh = Some(Iroh::spawn(node.attach("iroh"), iroh(args)).map_err(unbound)?);
        }
        Ok(network)
    }

    /// What the endpoint on plain UDP counts, if there is one.
    pub(crate) fn udp(&self) -> Option<Meter> {
        self.udp.as_ref().map(Udp::meter)
    }

    /// Waits until the endpoints of a closed node have said farewell to their peers, but not beyond the deadline.
    pub(crate) fn close(self, deadline: Instant) {
        let udp = self.udp.is_none_or(|udp| wait::until(deadline, udp.close()).is_some());
        let iroh = self.iroh.is_none_or(|iroh| wait::until(deadline, iroh.close()).is_some());
        if !udp || !iroh {
            tracing::debug!("some peer did not answer the farewell");
        }
    }
}

/// An option that the chosen transport has no use for, and the transport that has.
fn misfit(args: &NetworkArgs) -> Option<(&'static str, &'static str)> {
    let without_udp = args.transport == Transport::Iroh;
    let without_iroh = args.transport == Transport::Udp;
    let options = [
        (without_udp && args.congestion != Congestion::Cubic, "--congestion", "udp"),
        (without_udp && args.thin, "--thin", "udp"),
        (without_udp && args.no_offload, "--no-offload", "udp"),
        (without_udp && args.local, "--local", "udp"),
        (without_iroh && args.relay, "--relay", "iroh"),
        (without_iroh && args.discovery, "--discovery", "iroh"),
        (args.transport != Transport::Both && !args.listen_udp.is_empty(), "--listen-udp", "both"),
    ];
    options.into_iter().find_map(|(misfit, option, transport)| misfit.then_some((option, transport)))
}

fn udp(args: &NetworkArgs) -> peat_smol::Options {
    let mut options = peat_smol::Options::default();
    let listen = if args.transport == Transport::Both { &args.listen_udp } else { &args.listen };
    if !listen.is_empty() {
        options.listen.clone_from(listen);
    }
    options.congestion = args.congestion;
    if args.thin {
        options.profile = Profile::Thin;
    }
    options.segmentation_offload = !args.no_offload;
    options.discovery = args.local;
    options
}

fn iroh(args: &NetworkArgs) -> peat_iroh::Options {
    let mut options = peat_iroh::Options::default();
    if !args.listen.is_empty() {
        options.listen.clone_from(&args.listen);
    }
    if args.relay {
        options.relay = Relay::Public;
    }
    options.lookup = args.discovery;
    options.port_mapper = args.port_mapper;
    options
}

fn unbound(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Network, error, "choose another address with --listen, or stop what uses it")
}
