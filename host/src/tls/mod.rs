//! TLS with rustls: ciphers of single records, and what a handshake leaves.
//!
//! | file | holds |
//! | --- | --- |
//! | [`ciphers`] | rustls's ciphers, as the core wants them |
//! | [`provider`] | cipher suites that are offered |
//! | [`secrets`] | secrets of a handshake that is over, as the core stores them |

pub mod ciphers;
pub mod provider;
pub mod secrets;
