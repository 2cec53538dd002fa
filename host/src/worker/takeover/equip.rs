//! Equipment of a core: ciphers, and the secret of a host that begins.

use crate::clock::now_ns;
use crate::tls::ciphers::RustlsCiphers;
use greenroom_core::core::Core;
use greenroom_core::effects::birth::SECRET_BYTES;
use greenroom_core::input::{Ciphers, Input};
use std::hash::{BuildHasher, Hasher, RandomState};

/// Gives a core its ciphers, and a secret. The core of a successor keeps the secret that it has.
pub(super) fn equip(core: &mut Core) {
    core.handle(Input::Ciphers(Ciphers(Box::new(RustlsCiphers))));
    core.handle(Input::HostBegins { secret: secret(), now_ns: now_ns() });
}

/// Bytes that nobody can tell, from the random keys that each thread has for its hash maps.
fn secret() -> [u8; SECRET_BYTES] {
    let mut secret = [0; SECRET_BYTES];
    for part in secret.chunks_exact_mut(size_of::<u64>()) {
        part.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    secret
}
