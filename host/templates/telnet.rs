//! Service `hello`: counts the lines of each telnet session, and asks for the next with a prompt.
#![forbid(unsafe_code)]

use greenroom_handler::{Action, Fault, Framing, Handler, NoConfig, Turn, export, telnet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

// A library may offer several services: name each.
export!(Service);

/// State of a session, which the host keeps across builds and crashes.
///
/// A new field needs `#[serde(default)]`. For any other change raise `STATE_VERSION` and add a
/// migration.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Seen {
    lines: u64,
    /// Whether the peer tells the size of its window.
    sized: bool,
}

/// The service. It has no settings; for some, see `type Config` in the SDK's guide.
struct Service;

impl Handler for Service {
    // Its name, unique in a host.
    const SERVICE: &'static str = "hello";
    // Its TCP port on loopback, unless greenroom.toml says otherwise.
    const PORT: u16 = 4100;
    // Longest line, in bytes. The host does telnet's negotiation.
    const FRAMING: Framing = Framing::Telnet { bytes_max: 1024 };
    type State = Seen;
    type Config = NoConfig;

    /// Builds the service. An error refuses the build, and the operator reads it.
    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Service)
    }

    /// Runs one action. An error or a panic undoes all of it, and the session goes on.
    fn handle(&self, turn: &mut Turn<'_, Seen>, action: Action<'_>) -> Result<(), Fault> {
        match action {
            Action::Opened => {
                turn.send_line("Welcome. Say something.");
                // Options are asked for in the first turn.
                turn.telnet_do(telnet::WINDOW_SIZE);
                turn.prompt("> ");
            }
            // Change the answer, save, and the connected client gets it at its next line.
            Action::Message(line) => {
                turn.state.lines += 1;
                let answer = format!("{}: {}", turn.state.lines, String::from_utf8_lossy(line));
                turn.send_line(answer);
                turn.prompt("> ");
            }
            Action::Negotiated { option: telnet::WINDOW_SIZE, on, .. } => turn.state.sized = on,
            // Subnegotiations, timers, notes, jobs and the session's end come here, too.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_handler::testing::TestHost;

    #[test]
    fn lines_are_counted() {
        let mut host = TestHost::<Service>::new("{}").unwrap();
        let peer = host.open();
        assert_eq!(host.output(peer), "Welcome. Say something.\n> ");
        assert_eq!(host.line(peer, "good day"), "1: good day\n> ");
        assert_eq!(host.state(peer).lines, 1);
    }
}
