//! Ciphers of records: rustls's own, made of stored keys. No code here forms a nonce.

use super::provider::suite;
use greenroom_core::tls::protection::{Open, Protection, Seal};
use greenroom_core::tls::record::HEADER_BYTES;
use greenroom_core::tls::state::Direction;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundPlainMessage,
};
use rustls::crypto::tls13::{Hkdf, OkmBlock};
use rustls::{ContentType, ProtocolVersion, SupportedCipherSuite};

/// rustls's ciphers.
pub struct RustlsCiphers;

/// Cipher of one direction that seals.
struct Sealer(Box<dyn MessageEncrypter>);

/// Cipher of one direction that opens.
struct Opener(Box<dyn MessageDecrypter>);

impl Protection for RustlsCiphers {
    fn sealer(&self, number: u16, keys: &Direction) -> Option<Box<dyn Seal>> {
        let key = AeadKey::from(keys.key);
        let cipher = match suite(number)? {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, Iv::from(keys.iv)),
            SupportedCipherSuite::Tls12(suite) => {
                // The rest of the IV is where the explicit nonces begin.
                let (fixed, explicit) = keys.iv.split_at(suite.aead_alg.key_block_shape().fixed_iv_len);
                suite.aead_alg.encrypter(key, fixed, explicit)
            }
        };
        Some(Box::new(Sealer(cipher)))
    }

    fn opener(&self, number: u16, keys: &Direction) -> Option<Box<dyn Open>> {
        let key = AeadKey::from(keys.key);
        let cipher = match suite(number)? {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, Iv::from(keys.iv)),
            SupportedCipherSuite::Tls12(suite) => {
                let fixed = &keys.iv[..suite.aead_alg.key_block_shape().fixed_iv_len];
                suite.aead_alg.decrypter(key, fixed)
            }
        };
        Some(Box::new(Opener(cipher)))
    }

    fn update(&self, number: u16, keys: &mut Direction) -> bool {
        let Some(SupportedCipherSuite::Tls13(suite)) = suite(number) else { return false };
        let len = usize::from(keys.secret_len);
        let mut next = [0; 48];
        if len == 0 || !expand(suite.hkdf_provider, &keys.secret[..len], b"traffic upd", &mut next[..len]) {
            return false;
        }
        keys.secret = next;
        keys.number = 0;
        derive(suite.hkdf_provider, keys)
    }

    fn records_max(&self, number: u16) -> u64 {
        suite(number).map_or(0, |suite| match suite {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        })
    }
}

/// Derives key and IV of a direction from its secret (RFC 8446, 7.3). False: the secret is none of
/// this hash.
pub(super) fn derive(hkdf: &dyn Hkdf, keys: &mut Direction) -> bool {
    let secret = zeroize::Zeroizing::new(keys.secret);
    let secret = &secret[..usize::from(keys.secret_len)];
    expand(hkdf, secret, b"key", &mut keys.key) && expand(hkdf, secret, b"iv", &mut keys.iv)
}

/// Expands a secret under a label, without a context: `HKDF-Expand-Label` of RFC 8446, 7.1.
fn expand(hkdf: &dyn Hkdf, secret: &[u8], label: &[u8], out: &mut [u8]) -> bool {
    let expander = hkdf.expander_for_okm(&OkmBlock::new(secret));
    let len = (out.len() as u16).to_be_bytes();
    let label_len = [(b"tls13 ".len() + label.len()) as u8];
    expander.expand_slice(&[&len, &label_len, b"tls13 ", label, &[0]], out).is_ok()
}

impl Seal for Sealer {
    fn seal(&mut self, kind: u8, content: &[u8], number: u64, out: &mut Vec<u8>) -> bool {
        let message = OutboundPlainMessage {
            typ: ContentType::from(kind),
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(content),
        };
        match self.0.encrypt(message, number) {
            Ok(record) => {
                out.extend_from_slice(&record.encode());
                true
            }
            Err(_) => false,
        }
    }
}

impl Open for Opener {
    fn open<'b>(&mut self, kind: u8, body: &'b mut [u8], number: u64) -> Option<(u8, &'b [u8])> {
        let record = InboundOpaqueMessage::new(ContentType::from(kind), ProtocolVersion::TLSv1_2, body);
        let opened = self.0.decrypt(record, number).ok()?;
        Some((u8::from(opened.typ), opened.payload))
    }
}

const _: () = assert!(HEADER_BYTES == 5);

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_core::tls::record::kind;

    fn keys(len: u8) -> Direction {
        Direction { secret: [7; 48], secret_len: len, key: [9; 32], iv: [3; 12], number: 0 }
    }

    #[test]
    fn every_suite_opens_what_it_seals_and_nothing_else() {
        for (number, len) in [(0x1302, 48), (0x1303, 32), (0xc02c, 0), (0xcca9, 0), (0xc030, 0), (0xcca8, 0)]
        {
            let (mut ours, mut theirs) = (keys(len), keys(len));
            for round in 0..2u64 {
                let mut sealer = RustlsCiphers.sealer(number, &ours).expect("a known suite");
                let mut opener = RustlsCiphers.opener(number, &theirs).expect("a known suite");
                let mut record = Vec::new();
                assert!(sealer.seal(kind::DATA, b"hello", round, &mut record));
                assert_eq!((record[0], &record[1..3]), (23, &[3, 3][..]));
                let (head, body) = record.split_at(HEADER_BYTES);
                assert_eq!(usize::from(u16::from_be_bytes([head[3], head[4]])), body.len());
                assert!(opener.open(23, &mut body.to_vec(), round + 1).is_none());
                assert_eq!(opener.open(23, &mut body.to_vec(), round), Some((kind::DATA, &b"hello"[..])));
                // The next keys are others, and both sides derive the same.
                assert_eq!(RustlsCiphers.update(number, &mut ours), len > 0);
                assert_eq!(RustlsCiphers.update(number, &mut theirs), len > 0);
                assert!(ours == theirs && (len == 0 || ours.key != [9; 32]));
            }
            assert!(RustlsCiphers.records_max(number) >= 1 << 24);
        }
        // AES-128 has keys that can't be made here.
        assert!(RustlsCiphers.sealer(0x1301, &keys(32)).is_none());
        assert!(!RustlsCiphers.update(0x1302, &mut keys(0)));
    }
}
