//! Cipher suites that are offered: those whose ciphers can be made of stored keys.
//!
//! rustls 0.23 makes no cipher with a key of 16 bytes outside a connection. So AES-128 is left out;
//! all clients of today have AES-256 or ChaCha20.

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::{CipherSuite, SupportedCipherSuite};
use std::sync::Arc;

/// Suites that are offered, the preferred one first.
const SUITES: [SupportedCipherSuite; 6] = [
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Returns ring's cryptography, with the suites that are offered.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: SUITES.to_vec(), ..default_provider() })
}

/// Returns the suite of a number. `None`: it is not offered.
pub(super) fn suite(number: u16) -> Option<SupportedCipherSuite> {
    SUITES.into_iter().find(|s| s.suite() == CipherSuite::from(number))
}
