//! Tickets: who a node is, where it listens, and the invitation that lets the bearer in.
//!
//! # Text
//! `peat`, then lower-case base32 (RFC 4648) without padding over these bytes:
//!
//! | size | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 32 | the node's id |
//! | … | items: kind `u8`, length `u8`, bytes; invitations before addresses |
//! | 4 | checksum: the first bytes of BLAKE3 over everything before it |
//!
//! | kind | bytes | item |
//! |---|---|---|
//! | 1 | 32 | invitation, at most one |
//! | 2 | 6 | IPv4 address and port, big-endian |
//! | 3 | 18 | IPv6 address and port, big-endian, without flow and scope |
//!
//! Every ticket has exactly one text: an item of another kind, or in another place, is refused. A later version that
//! needs more says so in its first byte.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use peat_proto::{Invitation, PeerId};

/// Everything that another node needs to join this one.
///
/// Whoever holds a ticket with an invitation can join: treat it like a password.
///
/// ```
/// # use peat_node::{PeerId, Ticket};
/// let ticket = Ticket { peer: PeerId([7; 32]), addrs: vec!["192.0.2.1:4040".parse()?], invitation: None };
/// assert_eq!(ticket.to_string().parse::<Ticket>()?, ticket);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Whom to dial; the transport pins the connection to this key.
    pub peer: PeerId,
    /// Where it listens. The text carries the first [`Ticket::MAX_ADDRS`], without IPv6 flow and scope.
    pub addrs: Vec<SocketAddr>,
    /// The secret to show it.
    pub invitation: Option<Invitation>,
}

/// Why a text is not a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadTicket {
    /// The text does not begin with `peat`.
    #[error("a ticket begins with `peat`; copy it whole, without spaces around it")]
    Prefix,
    /// A character that is neither `a`-`z` nor `2`-`7`.
    #[error("character {0} does not belong in a ticket; copy it again, all lower case")]
    Character(usize),
    /// The checksum does not match, or the text is cut.
    #[error("the ticket is mistyped or cut short; copy it again")]
    Mistyped,
    /// Longer than any ticket.
    #[error("the text is longer than any ticket; is there something behind it?")]
    TooLong,
    /// Written by a later version.
    #[error("the ticket has version {0}, this program reads 1; update it")]
    Version(u8),
    /// The checksum matches and an item does not: whoever made it did not follow the format.
    #[error("the ticket is not well formed; ask for a new one")]
    Item,
    /// More than [`Ticket::MAX_ADDRS`] addresses.
    #[error("the ticket has more than {} addresses; ask for a new one", Ticket::MAX_ADDRS)]
    TooManyAddresses,
}

const PREFIX: &str = "peat";
const VERSION: u8 = 1;
const INVITATION: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 3;
const CHECKSUM: usize = 4;

/// The largest ticket in bytes: everything present, all addresses IPv6.
const MAX_LEN: usize = 1 + 32 + (2 + 32) + Ticket::MAX_ADDRS * (2 + 18) + CHECKSUM;

impl Ticket {
    /// Most addresses in a ticket: 16, of 20 bytes at most, keep the text below 640 characters.
    pub const MAX_ADDRS: usize = 16;

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.peer.0);
        if let Some(invitation) = &self.invitation {
            item(&mut out, INVITATION, &invitation.0);
        }
        for addr in self.addrs.iter().take(Self::MAX_ADDRS) {
            let port = addr.port().to_be_bytes();
            match addr.ip() {
                IpAddr::V4(ip) => item(&mut out, IPV4, &[&ip.octets()[..], &port].concat()),
                IpAddr::V6(ip) => item(&mut out, IPV6, &[&ip.octets()[..], &port].concat()),
            }
        }
        out.extend(checksum(&out));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, BadTicket> {
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(BadTicket::Mistyped)?;
        if checksum(body) != *sum {
            return Err(BadTicket::Mistyped);
        }
        let (version, rest) = body.split_first().ok_or(BadTicket::Mistyped)?;
        if *version != VERSION {
            return Err(BadTicket::Version(*version));
        }
        let (peer, mut rest) = rest.split_first_chunk().ok_or(BadTicket::Item)?;
        let mut ticket = Self { peer: PeerId(*peer), addrs: Vec::new(), invitation: None };
        while let Some(([kind, len], tail)) = rest.split_first_chunk() {
            let (value, tail) = tail.split_at_checked(usize::from(*len)).ok_or(BadTicket::Item)?;
            ticket.take(*kind, value)?;
            rest = tail;
        }
        if rest.is_empty() { Ok(ticket) } else { Err(BadTicket::Item) }
    }

    fn take(&mut self, kind: u8, value: &[u8]) -> Result<(), BadTicket> {
        match kind {
            INVITATION if self.invitation.is_none() && self.addrs.is_empty() => {
                let secret = value.try_into().map_err(|_| BadTicket::Item)?;
                self.invitation = Some(Invitation(secret));
                return Ok(());
            }
            IPV4 | IPV6 if self.addrs.len() == Self::MAX_ADDRS => {
                return Err(BadTicket::TooManyAddresses);
            }
            IPV4 | IPV6 => {}
            _ => return Err(BadTicket::Item),
        }
        let (ip, port) = value.split_last_chunk().ok_or(BadTicket::Item)?;
        let ip = match kind {
            IPV4 => <[u8; 4]>::try_from(ip).map(|ip| IpAddr::V4(Ipv4Addr::from(ip))),
            _ => <[u8; 16]>::try_from(ip).map(|ip| IpAddr::V6(Ipv6Addr::from(ip))),
        };
        let ip = ip.map_err(|_| BadTicket::Item)?;
        self.addrs.push(SocketAddr::new(ip, u16::from_be_bytes(*port)));
        Ok(())
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = BASE32_NOPAD.encode(&self.encode()).to_ascii_lowercase();
        write!(f, "{PREFIX}{digits}")
    }
}

impl FromStr for Ticket {
    type Err = BadTicket;

    fn from_str(text: &str) -> Result<Self, BadTicket> {
        let digits = text.strip_prefix(PREFIX).ok_or(BadTicket::Prefix)?;
        if digits.len() > BASE32_NOPAD.encode_len(MAX_LEN) {
            return Err(BadTicket::TooLong);
        }
        let strange = |c: &char| !matches!(c, 'a'..='z' | '2'..='7');
        if let Some(at) = digits.chars().position(|c| strange(&c)) {
            return Err(BadTicket::Character(PREFIX.len() + at + 1));
        }
        let bytes = BASE32_NOPAD.decode(digits.to_ascii_uppercase().as_bytes()).map_err(|_| BadTicket::Mistyped)?;
        Self::decode(&bytes)
    }
}

fn item(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let len = u8::try_from(value.len()).expect("items are at most 32 bytes");
    out.extend([kind, len]);
    out.extend(value);
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let [a, b, c, d, ..] = *blake3::hash(body).as_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Ticket {
        Ticket {
            peer: PeerId([0xab; 32]),
            addrs: vec![
                "192.0.2.7:4040".parse().expect("an address"),
                "[2001:db8::1]:65535".parse().expect("an address"),
            ],
            invitation: Some(Invitation([3; 32])),
        }
    }

    fn text_of(mut body: Vec<u8>) -> String {
        body.extend(checksum(&body));
        let digits = BASE32_NOPAD.encode(&body).to_ascii_lowercase();
        format!("{PREFIX}{digits}")
    }

    proptest! {
        #[test]
        fn a_ticket_reads_back_as_written(
            peer: [u8; 32],
            addrs in prop::collection::vec((any::<IpAddr>(), any::<u16>()), 0..=Ticket::MAX_ADDRS),
            invitation: Option<[u8; 32]>,
        ) {
            let ticket = Ticket {
                peer: PeerId(peer),
                addrs: addrs.into_iter().map(SocketAddr::from).collect(),
                invitation: invitation.map(Invitation),
            };
            let text = ticket.to_string();
            prop_assert_eq!(text.parse::<Ticket>(), Ok(ticket));
        }

        #[test]
        fn what_is_read_is_written_the_same(body in prop::collection::vec(any::<u8>(), 0..80), tidy: bool) {
            let mut bytes = vec![VERSION];
            bytes.extend([9; 32]);
            if tidy {
                item(&mut bytes, IPV4, &[1, 2, 3, 4, 5, 6]);
            }
            bytes.extend(body);
            let text = text_of(bytes);
            if let Ok(ticket) = text.parse::<Ticket>() {
                prop_assert_eq!(ticket.to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "(peat)?[a-z2-7\\PC]{0,700}") {
            if let Ok(ticket) = text.parse::<Ticket>() {
                prop_assert_eq!(ticket.to_string(), text);
            }
        }
    }

    #[test]
    fn every_cut_is_refused() {
        let text = sample().to_string();
        for cut in 0..text.len() {
            let refused = text[..cut].parse::<Ticket>();
            let expected = if cut < PREFIX.len() { BadTicket::Prefix } else { BadTicket::Mistyped };
            assert_eq!(refused, Err(expected), "cut at {cut}");
        }
    }

    #[test]
    fn every_flipped_bit_and_mistyped_character_is_refused() {
        let ticket = sample();
        let bytes = ticket.encode();
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert_eq!(Ticket::decode(&flipped), Err(BadTicket::Mistyped));
        }
        let text = ticket.to_string();
        for at in PREFIX.len()..text.len() {
            let typo = if &text[at..=at] == "a" { "b" } else { "a" };
            let typed = format!("{}{typo}{}", &text[..at], &text[at + 1..]);
            assert_eq!(typed.parse::<Ticket>(), Err(BadTicket::Mistyped));
        }
    }

    #[test]
    fn each_mistake_has_its_own_hint() {
        let text = sample().to_string();
        let parse = |text: &str| text.parse::<Ticket>();
        assert_eq!(parse(&format!(" {text}")), Err(BadTicket::Prefix));
        assert_eq!(parse(&format!("{text} ")), Err(BadTicket::Character(text.len() + 1)));
        let shouted = format!("peat{}", text[4..].to_ascii_uppercase());
        assert_eq!(parse(&shouted), Err(BadTicket::Character(5)));
        assert_eq!(parse(&format!("peat{}", "a".repeat(700))), Err(BadTicket::TooLong));

        let body = |tail: &[u8]| [&[VERSION][..], &[9; 32], tail].concat();
        assert_eq!(parse(&text_of([&[2][..], &[9; 32]].concat())), Err(BadTicket::Version(2)));
        assert_eq!(parse(&text_of(body(&[77, 0]))), Err(BadTicket::Item));
        assert_eq!(parse(&text_of(body(&[IPV4, 5, 1, 2, 3, 4, 5]))), Err(BadTicket::Item));
        assert_eq!(parse(&text_of(body(&[IPV4]))), Err(BadTicket::Item));
        let late = [&[IPV4, 6, 1, 2, 3, 4, 5, 6, INVITATION, 32][..], &[1; 32]].concat();
        assert_eq!(parse(&text_of(body(&late))), Err(BadTicket::Item));
        let many = [IPV4, 6, 1, 2, 3, 4, 5, 6].repeat(17);
        assert_eq!(parse(&text_of(body(&many))), Err(BadTicket::TooManyAddresses));
    }
}
