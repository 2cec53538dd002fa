//! Journald: its native protocol, a datagram for each entry.
//!
//! A datagram has a line `NAME=value` for each field. Values are in one line, so the protocol's
//! other form, with a length, is not needed. Bounds of the texts keep a datagram below what the
//! kernel takes at once.
//!
//! `MESSAGE` holds the fields, too: `journalctl` shows nothing else.

use super::entry::{Entry, FieldValue};
use crate::printable::one_line;
use std::fmt::Write;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use tracing::Level;

/// Socket of the journal.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Whether standard error goes to the journal, as systemd says.
pub fn is_standard_error() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(at) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream.to_str() == Some(&format!("{}:{}", at.st_dev(), at.st_ino()))
}

/// Whether a journal takes entries. The error says why not.
pub fn check() -> Result<(), String> {
    let connected = UnixDatagram::unbound().and_then(|socket| socket.connect(SOCKET));
    connected.map_err(|e| format!("the journal can't be reached at {SOCKET}: {e}"))
}

/// The journal, for the thread that writes the log.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// Fails if no journal takes entries now.
    pub(super) fn open() -> Result<Journal, String> {
        check()?;
        UnixDatagram::unbound().map(Journal).map_err(|e| format!("a socket to the journal: {e}"))
    }

    /// Sends an entry. Waits for room. The socket is found by its path each time, so a journal that
    /// was gone is found again.
    pub(super) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.0.send_to(datagram, Path::new(SOCKET)).map(|_| ())
    }
}

/// An entry as a datagram. `text`: message and fields in one line.
pub(super) fn datagram(entry: &Entry, process: &str, text: &str) -> Vec<u8> {
    // syslog's: 3 is an error, 7 is for debugging.
    let priority = match entry.level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    let mut all = format!(
        "MESSAGE={text}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=greenroom\nGREENROOM_PROCESS={process}\n"
    );
    if let Some((file, line)) = entry.place {
        let _ = write!(all, "CODE_FILE={file}\nCODE_LINE={line}\n");
    }
    for (name, value) in &entry.fields {
        let value = match value {
            FieldValue::Shown(text) | FieldValue::Quoted(text) => one_line(text).into_owned(),
            FieldValue::Plain(value) => value.to_string(),
        };
        let _ = writeln!(all, "GREENROOM_{}={value}", name.to_ascii_uppercase());
    }
    all.into_bytes()
}
