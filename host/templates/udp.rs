//! Service `hello`: counts the datagrams from each address, and sends them back.
#![forbid(unsafe_code)]

use greenroom_handler::{Action, Framing, Handler, Result, Table, Tables, Turn, export, handler};

// A library may offer several services: name each.
export!(Service);

/// Datagrams so far, by the sender's address. UDP has no sessions here, so what must be remembered
/// is in a table. The host keeps it across builds, crashes and restarts.
const SEEN: Table<u64> = Table::new("hello-seen");

/// The service. It has no settings; for some, see `type Config` in the SDK's guide.
struct Service;

#[handler]
impl Handler for Service {
    // Its name, unique in a host.
    const SERVICE: &'static str = "hello";
    // Its UDP port on loopback, unless greenroom.toml says otherwise.
    const PORT: u16 = 4100;
    // Longest datagram, in bytes. `Framing::Peer` makes a session of each address instead.
    const FRAMING: Framing = Framing::Datagrams { bytes_max: 1400 };

    /// Tables that this service owns: their values are checked and migrated as states are.
    fn tables() -> Tables {
        Tables::none().own(&SEEN)
    }

    /// Runs one action. An error or a panic undoes all of it.
    fn handle_service(&self, turn: &mut Turn, action: Action) -> Result {
        // Change the answer, save, and the next datagram gets it. Nothing proves that `from` is
        // the sender's address, so the host bounds how much goes back to it.
        if let Action::Datagram { from, bytes } = action {
            let key = from.ip().to_string();
            let count = SEEN.get(turn, &key)?.unwrap_or(0) + 1;
            SEEN.put(turn, &key, &count)?;
            turn.send(format!("{count}: {}", String::from_utf8_lossy(bytes)));
        }
        // Timers and jobs of the service come here, too.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_handler::testing::TestHost;

    #[test]
    fn datagrams_are_counted() {
        let mut host = TestHost::<Service>::new("{}").unwrap();
        let from = "127.0.0.1:9".parse().unwrap();
        assert_eq!(host.datagram(from, "good day"), [(from, b"1: good day".to_vec())]);
        assert_eq!(host.datagram(from, "and night"), [(from, b"2: and night".to_vec())]);
    }
}
