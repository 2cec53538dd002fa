//! Service `hello`: asks for a name and a number, then counts lines.
#![forbid(unsafe_code)]

use greenroom_handler::{Dialogue, Handler, Result, Step, Talk, Turn, export, handler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

// A library may offer several services: name each.
export!(Service);

/// State of a session, which the host keeps across builds and crashes.
///
/// A new field needs `#[serde(default)]`. For any other change raise `STATE_VERSION` and add a
/// migration.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Guest {
    /// The answers so far, while questions are asked.
    talk: Talk,
    /// Name of the peer, behind the last question.
    name: Option<String>,
    lines: u64,
}

/// Asks top-down. A swap or a crash in the middle of a prompt goes on there.
fn enter(d: &mut Dialogue<Guest>) -> Step {
    // A question more, or another prompt: save, and connected peers are asked from there.
    let name = d.ask_until("Name? ", |line| if line.is_empty() { Err("A name, please.") } else { Ok(line.to_owned()) })?;
    let lucky = d.ask_until("Lucky number? ", |line| line.parse::<u64>().map_err(|_| "A number, please."))?;
    // Effects happen once, although the function runs again with each answer.
    d.once(|turn| {
        turn.send_line(format!("Welcome, {name}: {lucky} it is."));
        turn.state.lines = lucky;
        turn.state.name = Some(name);
        Ok(())
    })
}

/// The service. It has no settings; for some, see `type Config` in the SDK's guide.
struct Service;

// An action that has no function here does nothing: a timer, a note, the session's end.
#[handler]
impl Handler for Service {
    // Its name, unique in a host.
    const SERVICE: &'static str = "hello";
    // Its TCP port on loopback, unless greenroom.toml says otherwise.
    const PORT: u16 = 4100;
    type State = Guest;

    /// A peer has connected.
    fn opened(&self, turn: &mut Turn<Guest>) -> Result {
        turn.talk(|guest| &mut guest.talk, None, enter)?;
        Ok(())
    }

    /// A line came. An error or a panic undoes all of this, and the session goes on.
    fn message(&self, turn: &mut Turn<Guest>, line: &[u8]) -> Result {
        if turn.state.name.is_none() {
            turn.talk(|guest| &mut guest.talk, Some(line), enter)?;
            return Ok(());
        }
        turn.state.lines += 1;
        // Change the answer, save, and the connected client gets it at its next line.
        let answer = format!("{}: {}", turn.state.lines, String::from_utf8_lossy(line));
        turn.send_line(answer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_handler::testing::TestHost;

    #[test]
    fn questions_come_first() {
        let mut host = TestHost::<Service>::new("{}").unwrap();
        let peer = host.open();
        assert_eq!(host.output(peer), "Name? ");
        assert_eq!(host.line(peer, ""), "A name, please.\nName? ");
        assert_eq!(host.line(peer, "ann"), "Lucky number? ");
        assert_eq!(host.line(peer, "7"), "Welcome, ann: 7 it is.\n");
        assert_eq!(host.line(peer, "good day"), "8: good day\n");
        assert_eq!(host.state(peer).name.as_deref(), Some("ann"));
    }
}
