//! Service `hello`: counts the lines of each session, and sends them back.
#![forbid(unsafe_code)]

use greenroom_handler::{Handler, Result, Turn, export, handler};
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
}

/// Settings of the service: `settings` of `[service.hello]` in greenroom.toml.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    welcome: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { welcome: "Welcome.".into() }
    }
}

/// The service. Holds its settings and nothing that changes: sessions live longer than this build.
struct Service(Settings);

impl From<Settings> for Service {
    fn from(settings: Settings) -> Self {
        Service(settings)
    }
}

// An action that has no function here does nothing: a timer, a note, the session's end.
#[handler]
impl Handler for Service {
    // Its name, unique in a host.
    const SERVICE: &'static str = "hello";
    // Its TCP port on loopback, unless greenroom.toml says otherwise.
    const PORT: u16 = 4100;
    type State = Seen;
    type Config = Settings;

    /// A peer has connected.
    fn opened(&self, turn: &mut Turn<Seen>) -> Result {
        turn.send_line(&self.0.welcome);
        Ok(())
    }

    /// A line came. An error or a panic undoes all of this, and the session goes on.
    fn message(&self, turn: &mut Turn<Seen>, line: &[u8]) -> Result {
        turn.state.lines += 1;
        // Change the answer, save, and the connected client gets it at its next line.
        let answer = format!("{}: {}", turn.state.lines, String::from_utf8_lossy(line));
        tracing::info!(lines = turn.state.lines, "answered");
        turn.send_line(answer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_handler::testing::TestHost;

    #[test]
    fn lines_are_counted() {
        let mut host = TestHost::<Service>::new(r#"{"welcome": "Hi."}"#).unwrap();
        let peer = host.open();
        assert_eq!(host.output(peer), "Hi.\n");
        assert_eq!(host.line(peer, "good day"), "1: good day\n");
        assert_eq!(host.line(peer, "and night"), "2: and night\n");
        assert_eq!(host.state(peer).lines, 2);
    }
}
