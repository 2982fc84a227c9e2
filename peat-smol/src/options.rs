//! How to bind, and why that may fail.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use peat_node::transport::limits;

/// How to bind.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; any number of addresses. Default `0.0.0.0:0` and `[::]:0`, of which the second may fail on a
    /// machine without IPv6.
    pub listen: Vec<SocketAddr>,
    /// Time in which a connection must be up, and after which a dial has failed. Default 30 s: as long as the core waits
    /// at most between two dials, so that a wanted peer that is silent is always being dialled, and found within one
    /// probe when it comes back.
    pub handshake_timeout: Duration,
    /// Bytes on their way to a peer, written and not acknowledged; more where [`Congestion::Fixed`] needs more. Default
    /// [`limits::SEND_WINDOW`].
    pub send_window: u32,
    /// What decides how much may be on its way.
    pub congestion: Congestion,
    /// What kind of link to expect.
    pub profile: Profile,
    /// Whether the system may split a train of up to ten packets (GSO). Default yes; switch it off where links are shaped
    /// and connections are lost to idle timeouts for no other reason.
    pub segmentation_offload: bool,
    /// Whether to announce this node by multicast DNS-SD on the local networks, and to look there for peers that this node
    /// wants. What is found are addresses and nothing else: who answers there must prove its key, and is admitted as
    /// ever. Default no. Needs the crate's feature `discovery`.
    pub discovery: bool,
}

/// What decides how much may be on its way to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Congestion {
    /// CUBIC (RFC 9438): shares links fairly, and takes loss for congestion.
    #[default]
    Cubic,
    /// A window of twice rate times round trip, which loss does not shrink: for links with a provisioned rate of which
    /// radio loss takes a part. **Unfair** where links are shared: it makes no way for others. Both sides should know the
    /// rate: what a side takes of a stream ahead of its node follows from its own.
    Fixed {
        /// The rate of the link, in bits per second.
        bits_per_second: u64,
    },
}

/// What kind of link to expect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// Anything from Wi-Fi upwards.
    #[default]
    Broad,
    /// Every byte counts: packets stay at 1,200 bytes instead of looking for more (about 12 kB for each connection), a
    /// quiet connection is tested every 20 s and lost after 60 s of silence, and silent peers are probed every 5 s. Both
    /// sides should use it.
    Thin,
}

/// Why the sockets could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// An address of [`Options::listen`] cannot be used.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// There is no address to listen on.
    #[error("no address to listen on")]
    Nowhere,
    /// The node's key is no Ed25519 key.
    #[error("{0}")]
    Key(String),
    /// Peers cannot be looked for on the local networks.
    #[error("discovery on the local networks is not possible: {0}")]
    Discovery(String),
    /// The thread could not be started.
    #[error("the transport's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A text is not a [`Congestion`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`cubic`, or `fixed:RATE` with a rate in bits per second such as 256k or 2M")]
pub struct BadCongestion;

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()],
            handshake_timeout: Duration::from_secs(30),
            send_window: limits::SEND_WINDOW,
            congestion: Congestion::default(),
            profile: Profile::default(),
            segmentation_offload: true,
            discovery: false,
        }
    }
}

impl Congestion {
    /// Bytes of a stream that may be on their way, whatever the congestion window, so that a provisioned rate is not held
    /// up by less: twice its product with a round trip of 200 ms; a longer one holds it up. At least what any link has, at
    /// most 4 MiB, which are 80 Mbit/s of it.
    pub(crate) fn stream_window(self) -> u32 {
        match self {
            Self::Cubic => limits::STREAM_WINDOW,
            Self::Fixed { bits_per_second } => {
                let bytes = u32::try_from(bits_per_second / 8 / 5 * 2).unwrap_or(u32::MAX);
                bytes.clamp(limits::STREAM_WINDOW, 4 << 20)
            }
        }
    }
}

impl Profile {
    /// How often a silent peer is probed.
    pub(crate) fn probe(self) -> Duration {
        match self {
            Self::Broad => Duration::from_secs(1),
            Self::Thin => Duration::from_secs(5),
        }
    }

    /// How long the end of a handshake waits for what the node says first, which then fills the packet that QUIC would fill
    /// up with nothing (RFC 9000, 14.1), and needs none of its own. 10 ms: a change of threads
    /// and back, on a slow board.
    pub(crate) fn first_word(self) -> Option<Duration> {
        match self {
            Self::Broad => None,
            Self::Thin => Some(Duration::from_millis(10)),
        }
    }

    /// Silence after which a packet is sent that asks for an answer. 20 s: below the 30 s after which many address
    /// translators forget a flow.
    pub(crate) fn keep_alive(self) -> Duration {
        match self {
            Self::Broad => limits::KEEP_ALIVE,
            Self::Thin => Duration::from_secs(20),
        }
    }

    /// Silence after which a connection is lost.
    pub(crate) fn idle_timeout(self) -> Duration {
        match self {
            Self::Broad => limits::IDLE_TIMEOUT,
            Self::Thin => 2 * limits::IDLE_TIMEOUT,
        }
    }
}

impl FromStr for Congestion {
    type Err = BadCongestion;

    fn from_str(text: &str) -> Result<Self, BadCongestion> {
        if text == "cubic" {
            return Ok(Self::Cubic);
        }
        let rate = text.strip_prefix("fixed:").ok_or(BadCongestion)?;
        let (digits, unit) = match rate.strip_suffix(['k', 'M', 'G']) {
            Some(digits) if rate.ends_with('k') => (digits, 1_000),
            Some(digits) if rate.ends_with('M') => (digits, 1_000_000),
            Some(digits) => (digits, 1_000_000_000),
            None => (rate, 1),
        };
        let number: u64 = digits.parse().map_err(|_| BadCongestion)?;
        match number.checked_mul(unit) {
            Some(bits_per_second @ 1..) => Ok(Self::Fixed { bits_per_second }),
            _ => Err(BadCongestion),
        }
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cubic => f.write_str("cubic"),
            Self::Fixed { bits_per_second } => write!(f, "fixed:{bits_per_second}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_a_fixed_rate_between_bounds() {
        let window = |text: &str| text.parse::<Congestion>().expect("known").stream_window();
        assert_eq!([window("cubic"), window("fixed:256k"), window("fixed:2M")], [256 << 10; 3]);
        assert_eq!([window("fixed:20M"), window("fixed:50M")], [1_000_000, 2_500_000]);
        assert_eq!([window("fixed:100M"), window("fixed:9999999999G")], [4 << 20; 2]);
    }

    #[test]
    fn a_congestion_is_read_with_its_unit() {
        for (text, bits_per_second) in [("fixed:256k", 256_000), ("fixed:2M", 2_000_000), ("fixed:9600", 9_600)] {
            assert_eq!(text.parse(), Ok(Congestion::Fixed { bits_per_second }));
        }
        assert_eq!("cubic".parse(), Ok(Congestion::Cubic));
        for bad in ["", "bbr", "fixed", "fixed:", "fixed:0", "fixed:-1", "fixed:2m", "fixed:99999999999G"] {
            assert_eq!(bad.parse::<Congestion>(), Err(BadCongestion), "{bad}");
        }
    }
}
