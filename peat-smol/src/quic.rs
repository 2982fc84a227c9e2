//! How QUIC is set up.

use std::sync::Arc;

use peat_node::PeerId;
use peat_node::proto::Wire;
use peat_node::transport::{Port, limits};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};

use crate::congestion::{Factory, Gate};
use crate::options::{BindError, Options, Profile};
use crate::tls::{BadKey, Identity};

/// What connections are made from.
pub(crate) struct Quic {
    identity: Identity,
    transport: Arc<TransportConfig>,
}

impl Quic {
    pub(crate) fn new(port: &Port, options: &Options, gate: Gate) -> Result<Self, BindError> {
        let identity = Identity::new(port.secret(), port.alpns()).map_err(key)?;
        Ok(Self { identity, transport: Arc::new(transport(options, port.wires(), gate)) })
    }

    pub(crate) fn id(&self) -> PeerId {
        self.identity.id
    }

    pub(crate) fn endpoint(&self, may_fragment: bool) -> Result<Endpoint, BindError> {
        let server = self.identity.server().map_err(key)?;
        let server = QuicServerConfig::try_from(server).map_err(key)?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        // Callers are accepted or turned away at once, so that none of their packets is kept.
        server.transport_config(self.transport.clone()).max_incoming(1).incoming_buffer_size_total(0);
        let config = Arc::new(EndpointConfig::default());
        Ok(Endpoint::new(config, Some(Arc::new(server)), !may_fragment, None))
    }

    pub(crate) fn client(&self, peer: PeerId) -> Result<ClientConfig, BindError> {
        let client = self.identity.client(peer).map_err(key)?;
        let client = QuicClientConfig::try_from(client).map_err(key)?;
        let mut client = ClientConfig::new(Arc::new(client));
        client.transport_config(self.transport.clone());
        Ok(client)
    }
}

fn key(error: impl Into<Unusable>) -> BindError {
    BindError::Key(error.into().to_string())
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Key(#[from] BadKey),
    #[error(transparent)]
    Cipher(#[from] quinn_proto::crypto::rustls::NoInitialCipherSuite),
}

fn transport(options: &Options, wires: &[Wire], gate: Gate) -> TransportConfig {
    let mut config = TransportConfig::default();
    let window = options.congestion.stream_window();
    let windows = limits::RECEIVE_WINDOW / limits::STREAM_WINDOW * window;
    let idle = u32::try_from(options.profile.idle_timeout().as_millis()).unwrap_or(u32::MAX);
    config
        .max_concurrent_uni_streams(limits::MAX_STREAMS.into())
        .max_concurrent_bidi_streams(limits::max_bidirectional(wires).into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(window.into())
        .receive_window(windows.into())
        .send_window(options.send_window.max(window).into())
        .keep_alive_interval(Some(options.profile.keep_alive()))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .enable_segmentation_offload(options.segmentation_offload)
        .congestion_controller_factory(Arc::new(Factory { congestion: options.congestion, gate }));
    if options.profile == Profile::Thin {
        config.mtu_discovery_config(None);
    }
    config
}
