//! Broadcasts of one batch: which of them are one piece, and what a failed turn takes back.
//!
//! Consecutive broadcasts to the same sessions become one effect. The tests compare what the
//! sessions get with what separate broadcasts would have given them, and count pieces of output.

use crate::core::Core;
use crate::framing::Framing;
use crate::ids::Slot;
use crate::input::Input;
use crate::limits::host::Limits;
use crate::service::offer::{Build, Offer};
use crate::turn::code::{Batch, Code};
use crate::turn::fault::Fault;
use crate::turn::staging::Staging;
use greenroom_state::abi::action;
use greenroom_state::compatibility::StateShape;
use std::sync::Mutex;

/// Handler of the tests: a script. All sessions are on the topics a and b. A message's turn
/// takes the next line of the script, and makes a call for each word:
///
/// - `a+x` broadcasts x to all on a.
/// - `a-x` broadcasts x to the others on a.
/// - `a!` leaves a.
/// - `=x` answers x.
/// - Any other word fails the turn.
struct Room(Mutex<Vec<&'static str>>);

impl Code for Room {
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        for a in batch.actions {
            let mut script = "";
            match a.kind {
                action::OPENED => _ = ["a", "b"].map(|topic| staging.subscribe(topic)),
                action::MESSAGE => script = self.0.lock().unwrap().remove(0),
                _ => {}
            }
            for word in script.split_whitespace() {
                let (first, rest) = word.split_at(1);
                let (call, data) = rest.split_at(1);
                match (first, call) {
                    ("=", _) => _ = staging.send(rest.as_bytes()),
                    (topic, "+" | "-") => _ = staging.broadcast(topic, data.as_bytes(), call == "-"),
                    (topic, "!") => _ = staging.unsubscribe(topic),
                    _ => {
                        let message = "as asked".to_owned();
                        staging.turn_failed(Fault { kind: 0, message, file: String::new(), line: 0 });
                        return 0;
                    }
                }
            }
            if !staging.turn_ok() {
                break;
            }
        }
        0
    }
}

/// Output of the sender and of another session after a batch of turns, and the pieces of the
/// latter.
fn broadcast(script: &[&'static str]) -> (String, String, usize) {
    let mut core = Core::new(Limits::default());
    let framing = Framing::Lines { bytes_max: 9 };
    let shape = StateShape { version: 1, ..StateShape::default() };
    let offer = Offer { name: "s".into(), port: 0, dials: false, framing, shape, tables: Vec::new() };
    let build = Build { library: "l".into(), generation: 1, hash: String::new() };
    core.adopt(&build, vec![(offer, Box::new(Room(Mutex::new(script.to_vec()))))]);
    let service = core.service_named("s").expect("it was adopted");
    core.handle(Input::PassBegins { now_ns: 1 });
    for n in 0..2 {
        let peer = "127.0.0.1:9".parse().expect("an address");
        core.handle(Input::Opened { slot: Slot(n), id: u64::from(n) + 1, service, peer, at_ms: 0 });
    }
    core.handle(Input::Received { slot: Slot(0), bytes: &b"\n".repeat(script.len()) });
    core.handle(Input::Commit);
    let got = |slot| core.output(Slot(slot), |p| String::from_utf8(p.concat()).unwrap()).unwrap_or_default();
    let pieces = core.output(Slot(1), |pieces| pieces.len()).unwrap_or(0);
    (got(0), got(1), pieces)
}

#[test]
fn broadcasts_to_the_same_sessions_are_one_and_others_are_not() {
    let told = |script: &[&'static str]| {
        let (own, other, _) = broadcast(script);
        format!("{own} {other}")
    };
    // Within a turn, and from turn to turn.
    assert_eq!(told(&["a+1 a+2", "a+3"]), "123 123");
    // Others, and everybody; another topic.
    assert_eq!(told(&["a-1 a-2 a+3", "a-4"]), "3 1234");
    // Another topic, and a sender that has left.
    assert_eq!(told(&["a+1 a! b+2 a+3 b+4"]), "124 1234");
    // An answer between two broadcasts keeps its place in the sender's output.
    assert_eq!(told(&["a+1 =2 a+3 =4", "=5 a+6"]), "123456 136");
    // A turn that fails takes back what it went on with, and nothing else.
    assert_eq!(told(&["a+1 a+2", "a+3 fail", "a+4"]), "124 124");
    assert_eq!(told(&["a-1", "a-2 a+3 fail", "a-4"]), " 14");
    // Fifty of them are one piece.
    let long = "a+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    assert_eq!(broadcast(&[long; 50]).2, 1);
    assert_eq!(broadcast(&[long; 50]).1.len(), 50 * 32);
}
