//! `echo` sends each line back; `tally` numbers them, so that a lost or doubled turn shows.
#![forbid(unsafe_code)]

use greenroom_handler::{Action, Fault, Handler, NoConfig, Turn, export};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

export!(Echo, Tally);

struct Echo;

impl Handler for Echo {
    const SERVICE: &'static str = "echo";
    const PORT: u16 = 4001;
    type State = ();
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Echo)
    }

    fn handle(&self, turn: &mut Turn<'_, ()>, action: Action<'_>) -> Result<(), Fault> {
        if let Action::Message(line) = action {
            turn.send_line(line);
        }
        Ok(())
    }
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Count {
    count: u64,
}

struct Tally;

impl Handler for Tally {
    const SERVICE: &'static str = "tally";
    const PORT: u16 = 4002;
    type State = Count;
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Tally)
    }

    fn handle(&self, turn: &mut Turn<'_, Count>, action: Action<'_>) -> Result<(), Fault> {
        if let Action::Message(line) = action {
            turn.state.count += 1;
            turn.send(format!("{} ", turn.state.count));
            turn.send_line(line);
        }
        Ok(())
    }
}
