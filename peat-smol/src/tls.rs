//! TLS 1.3 between Ed25519 raw public keys (RFC 7250), proven by both sides: a node's id is its key.

use std::fmt;
use std::sync::Arc;

use peat_node::PeerId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
};

/// What stands before the 32-byte seed in the PKCS #8 form of an Ed25519 key (RFC 8410, 7).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// What stands before the 32-byte key in the SubjectPublicKeyInfo form of an Ed25519 key (RFC 8410, 4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// A server's name where TLS insists on one: it is neither sent nor looked at.
pub(crate) const NOBODY: &str = "peat.invalid";

/// The node's key, and how to use it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) id: PeerId,
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
    alpns: Vec<Vec<u8>>,
}

/// The other side's key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the node's key cannot be used: {0}")]
pub(crate) struct BadKey(#[from] Error);

impl Identity {
    /// The identity of this Ed25519 seed, which offers and accepts these protocols, the best first.
    pub(crate) fn new(seed: [u8; 32], alpns: Vec<Vec<u8>>) -> Result<Self, BadKey> {
        let pkcs8 = [&PKCS8[..], &seed].concat();
        let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8))?;
        let spki = key.public_key().ok_or_else(|| Error::General("no public key".to_owned()))?;
        let spki = CertificateDer::from(spki.to_vec());
        let id = peer(&spki)?;
        let key = Arc::new(CertifiedKey::new(vec![spki], key));
        Ok(Self { id, key, provider: Arc::new(ring::default_provider()), alpns })
    }

    /// For a dial: whoever answers must prove this key. Nothing is resumed; each connection proves anew.
    pub(crate) fn client(&self, expected: PeerId) -> Result<ClientConfig, BadKey> {
        let verifier = Arc::new(Verifier { expected: Some(expected), algorithms: self.algorithms() });
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(self.key.clone())));
        config.alpn_protocols.clone_from(&self.alpns);
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// For callers: anybody who proves a key may knock, and the core decides about the key.
    pub(crate) fn server(&self) -> Result<ServerConfig, BadKey> {
        let verifier = Arc::new(Verifier { expected: None, algorithms: self.algorithms() });
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.key.clone())));
        config.alpn_protocols.clone_from(&self.alpns);
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn algorithms(&self) -> WebPkiSupportedAlgorithms {
        self.provider.signature_verification_algorithms
    }
}

/// The key that a handshake has proven.
pub(crate) fn peer(spki: &CertificateDer<'_>) -> Result<PeerId, Error> {
    let key = spki.strip_prefix(&SPKI).and_then(|key| key.try_into().ok());
    key.map(PeerId).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Takes any Ed25519 key, or only the expected one.
struct Verifier {
    expected: Option<PeerId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn identify(&self, spki: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !intermediates.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        let found = peer(spki)?;
        match self.expected {
            Some(expected) if expected != found => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
            _ => Ok(()),
        }
    }

    fn signed(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        spki: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.identify(spki, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, spki, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        spki: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.identify(spki, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, spki, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_public_key_of_the_seed() {
        // RFC 8032, 7.1, test 1.
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let id = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(Identity::new(seed, Vec::new()).expect("a key").id, PeerId(id));
    }

    #[test]
    fn what_is_no_ed25519_key_is_refused() {
        let whole = [&SPKI[..], &[7; 32]].concat();
        assert_eq!(peer(&CertificateDer::from(whole.clone())), Ok(PeerId([7; 32])));
        for bad in [&whole[..43], &whole[1..], &[&whole[..], &[0]].concat()[..], &[]] {
            assert!(peer(&CertificateDer::from(bad.to_vec())).is_err());
        }
    }

    fn hex(text: &str) -> [u8; 32] {
        let id = PeerId::from_hex(text).expect("64 digits");
        id.0
    }
}
