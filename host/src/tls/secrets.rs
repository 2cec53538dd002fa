//! Secrets of a handshake that is over, as the core stores them.
//!
//! rustls gives keys, IVs and numbers away. It gives the traffic secrets of TLS 1.3, from which
//! later keys are derived, to a key log alone. So each step of a handshake runs with a place that
//! the log fills. Keys that are derived of a logged secret must be those that rustls gave.

use super::ciphers::derive;
use greenroom_core::tls::state::{Direction, TlsState};
use rustls::{Connection, ConnectionTrafficSecrets, KeyLog, ProtocolVersion, SupportedCipherSuite};
use std::cell::RefCell;
use zeroize::Zeroizing;

/// Traffic secrets that were logged; empty in TLS 1.2.
#[derive(Default)]
pub struct Logged {
    client: Zeroizing<Vec<u8>>,
    server: Zeroizing<Vec<u8>>,
}

thread_local! {
    /// Place of the handshake whose step runs.
    static UNDER_WAY: RefCell<Option<Logged>> = const { RefCell::new(None) };
}

impl Logged {
    /// Runs a step of a handshake, and notes the secrets that it logs.
    pub fn during<T>(&mut self, step: impl FnOnce() -> T) -> T {
        UNDER_WAY.set(Some(std::mem::take(self)));
        let result = step();
        *self = UNDER_WAY.take().unwrap_or_default();
        result
    }
}

/// Log that fills the place of the handshake under way.
#[derive(Debug)]
pub struct SecretsLog;

impl KeyLog for SecretsLog {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        UNDER_WAY.with_borrow_mut(|place| {
            let Some(logged) = place else { return };
            match label {
                "CLIENT_TRAFFIC_SECRET_0" => logged.client = Zeroizing::new(secret.to_vec()),
                "SERVER_TRAFFIC_SECRET_0" => logged.server = Zeroizing::new(secret.to_vec()),
                _ => {}
            }
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0")
    }
}

/// Takes the secrets off a connection whose handshake is over, and that has sent all of it.
/// `read` and `written` count the bytes of its stream so far. Fails with a sentence if rustls gives
/// none, or others than it has logged.
pub fn extract(
    connection: Connection,
    logged: &Logged,
    (read, written): (u64, u64),
) -> Result<TlsState, String> {
    let suite = connection.negotiated_cipher_suite().ok_or("no cipher suite was agreed on")?;
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => 0x0304,
        Some(ProtocolVersion::TLSv1_2) => 0x0303,
        other => return Err(format!("version {other:?} was agreed on")),
    };
    let is_client = matches!(connection, Connection::Client(_));
    let (theirs, ours) = match is_client {
        true => (&logged.server, &logged.client),
        false => (&logged.client, &logged.server),
    };
    let secrets = connection.dangerous_extract_secrets().map_err(|e| e.to_string())?;
    Ok(TlsState {
        version,
        suite: u16::from(suite.suite()),
        peer: direction(suite, secrets.rx, theirs)?,
        host: direction(suite, secrets.tx, ours)?,
        read,
        written,
        is_client,
        ..TlsState::default()
    })
}

/// Makes a direction of its number, key and IV, and of its secret if it has one.
fn direction(
    suite: SupportedCipherSuite,
    (number, keys): (u64, ConnectionTrafficSecrets),
    secret: &[u8],
) -> Result<Direction, String> {
    let (key, iv) = match keys {
        ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
        _ => return Err("its cipher has keys of another length".into()),
    };
    let mut direction = Direction { number, ..Direction::default() };
    direction.key = key.as_ref().try_into().map_err(|_| "its key has another length")?;
    direction.iv = iv.as_ref().try_into().map_err(|_| "its IV has another length")?;
    let SupportedCipherSuite::Tls13(suite) = suite else { return Ok(direction) };
    let place = direction.secret.get_mut(..secret.len()).filter(|_| !secret.is_empty());
    place.ok_or("its traffic secret was not logged")?.copy_from_slice(secret);
    direction.secret_len = secret.len() as u8;
    let mut derived = direction.clone();
    match derive(suite.hkdf_provider, &mut derived) && derived == direction {
        true => Ok(direction),
        false => Err("its keys are not those of its traffic secret".into()),
    }
}
