//! How QUIC is set up.

use std::sync::Arc;
use std::time::Duration;

use peat_node::PeerId;
use peat_node::proto::Wire;
use peat_node::transport::{Port, limits};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::crypto::{CryptoError, HmacKey};
use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, InvalidCid,
    RandomConnectionIdGenerator, ServerConfig, TransportConfig, VarInt,
};

use crate::congestion::{Factory, Gate};
use crate::options::{BindError, Options, Profile};
use crate::tls::{BadKey, Identity};

/// What connections are made from.
pub(crate) struct Quic {
    identity: Identity,
    resets: Resets,
    transport: Arc<TransportConfig>,
}

impl Quic {
    pub(crate) fn new(port: &Port, options: &Options, gate: Gate) -> Result<Self, BindError> {
        let identity = Identity::new(port.secret(), port.alpns()).map_err(key)?;
        let resets = Resets::of(&port.secret());
        Ok(Self { identity, resets, transport: Arc::new(transport(options, port.wires(), gate)) })
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
        let mut config = EndpointConfig::new(Arc::new(self.resets.clone()));
        let resets = self.resets.clone();
        config.cid_generator(move || Box::new(Names::new(resets.clone())));
        Ok(Endpoint::new(Arc::new(config), Some(Arc::new(server)), !may_fragment, None))
    }

    pub(crate) fn client(&self, peer: PeerId) -> Result<ClientConfig, BindError> {
        let client = self.identity.client(peer).map_err(key)?;
        let client = QuicClientConfig::try_from(client).map_err(key)?;
        let mut client = ClientConfig::new(Arc::new(client));
        client.transport_config(self.transport.clone());
        Ok(client)
    }
}

/// What makes the tokens by which a peer believes that a connection is forgotten here (RFC 9000, 10.3). From the node's key,
/// so that a peer learns it from the first packet that comes after a restart, and not from silence.
#[derive(Clone)]
struct Resets([u8; 32]);

impl Resets {
    fn of(secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key("peat 2026 QUIC stateless reset v1", secret))
    }

    fn hash(&self, data: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, data)
    }
}

impl HmacKey for Resets {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(self.hash(data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // Compared in constant time.
        let same = <[u8; blake3::OUT_LEN]>::try_from(signature).is_ok_and(|it| self.hash(data) == it);
        if same { Ok(()) } else { Err(CryptoError) }
    }
}

/// Names connections: 6 random bytes, so many that none comes again while somebody may know its token, and 2 by which the
/// node knows its own from noise, which gets no answer.
struct Names {
    random: RandomConnectionIdGenerator,
    resets: Resets,
}

/// Bytes of a name that are random, and all of them.
const RANDOM: usize = 6;
const NAME: usize = RANDOM + 2;

impl Names {
    fn new(resets: Resets) -> Self {
        Self { random: RandomConnectionIdGenerator::new(RANDOM), resets }
    }

    fn check(&self, random: &[u8]) -> [u8; NAME - RANDOM] {
        let hash = *self.resets.hash(&[b"name", random].concat()).as_bytes();
        [hash[0], hash[1]]
    }
}

impl ConnectionIdGenerator for Names {
    fn generate_cid(&mut self) -> ConnectionId {
        let random = self.random.generate_cid();
        ConnectionId::new(&[&random[..], &self.check(&random)].concat())
    }

    fn validate(&self, name: &ConnectionId) -> Result<(), InvalidCid> {
        match name.split_at_checked(RANDOM) {
            Some((random, check)) if check == self.check(random) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        NAME
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
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
    // One lane may take what the rate needs; a stranger's streams make us hold little more.
    let windows = limits::RECEIVE_WINDOW - limits::STREAM_WINDOW + window;
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
