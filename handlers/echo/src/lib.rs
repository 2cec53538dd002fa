//! Services `echo` and `tally`: the smallest handlers, and a pair for tests of the host.
//!
//! `echo` sends each line and each datagram back, and keeps no state. `tally` numbers the lines
//! of a session. A lost turn is a gap in the numbers that a peer reads, a doubled turn a
//! repetition. No reload and no takeover may cause either.
//!
//! Both take lines of up to 8 KiB, the SDK's default framing.
#![forbid(unsafe_code)]

use greenroom_handler::{Action, Handler, Result, Turn, export, handler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

export!(Echo, Tally);

/// Service `echo`: stateless, so a reload has nothing to migrate.
struct Echo;

#[handler]
impl Handler for Echo {
    const SERVICE: &'static str = "echo";
    const PORT: u16 = 4001;

    fn message(&self, turn: &mut Turn, line: &[u8]) -> Result {
        turn.send_line(line);
        Ok(())
    }

    fn handle_service(&self, turn: &mut Turn, action: Action) -> Result {
        if let Action::Datagram { bytes, .. } = action {
            turn.send(bytes);
        }
        Ok(())
    }
}

// State of `tally`: lines answered so far.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Count {
    /// Number of the last line.
    count: u64,
}

/// Service `tally`: a number and the line, for each line.
struct Tally;

#[handler]
impl Handler for Tally {
    const SERVICE: &'static str = "tally";
    const PORT: u16 = 4002;
    type State = Count;

    fn message(&self, turn: &mut Turn<Count>, line: &[u8]) -> Result {
        turn.state.count += 1;
        // Both sends are effects of this turn, so a peer gets the whole line or nothing.
        turn.send(format!("{} ", turn.state.count));
        turn.send_line(line);
        Ok(())
    }
}
