//! Broadcasts of one batch: merged ones, separate ones, and those that a failed turn drops.
//!
//! Consecutive broadcasts to the same sessions become one effect. The tests compare what the
//! sessions get with what separate broadcasts would have given them, and count pieces of output.

use crate::ids::Slot;
use crate::input::Input;
use crate::limits::host::Limits;
use crate::test_support::{Stub, open, serve};
use crate::turn::code::Code;
use crate::turn::effect::Broadcast;
use crate::turn::staging::Staging;
use greenroom_state::abi::{Action, action};
use std::sync::Mutex;

/// Handler of the tests: a script. All sessions are on the topics a and b. A message's turn
/// takes the next line of the script, and makes a call for each word:
///
/// - `a+x` broadcasts x to all on a.
/// - `a-x` broadcasts x to the others on a.
/// - `a!` leaves a.
/// - `=x` answers x.
/// - Any other word fails the turn.
fn room(script: &[&'static str]) -> impl Code + use<> {
    let script = Mutex::new(script.to_vec());
    Stub(move |a: &Action<'_>, staging: &mut Staging<'_>| {
        let mut words = "";
        match a.kind {
            action::OPENED => _ = [b"a", b"b"].map(|topic| staging.subscribe(topic)),
            action::MESSAGE => words = script.lock().unwrap().remove(0),
            _ => {}
        }
        for word in words.split_whitespace() {
            let (first, rest) = word.split_at(1);
            let (call, data) = rest.split_at(1);
            match (first, call) {
                ("=", _) => _ = staging.send(rest.as_bytes()),
                (topic, "+" | "-") => {
                    let how = Broadcast { others: call == "-", ..Broadcast::ALL };
                    staging.broadcast(topic.as_bytes(), data.as_bytes(), how);
                }
                (topic, "!") => _ = staging.unsubscribe(topic.as_bytes()),
                _ => return Err("as asked".into()),
            }
        }
        Ok(())
    })
}

/// Output of the sender and of another session after a batch of turns, and the pieces of the
/// latter.
fn broadcast(script: &[&'static str]) -> (String, String, usize) {
    let (mut core, service) = serve(Limits::default(), room(script));
    core.handle(Input::PassBegins { now_ns: 1 });
    open(&mut core, service, 0..2);
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
    // Broadcasts to the others are not merged with broadcasts to all sessions.
    assert_eq!(told(&["a-1 a-2 a+3", "a-4"]), "3 1234");
    // Another topic, and a sender that has left.
    assert_eq!(told(&["a+1 a! b+2 a+3 b+4"]), "124 1234");
    // An answer between two broadcasts keeps its place in the sender's output.
    assert_eq!(told(&["a+1 =2 a+3 =4", "=5 a+6"]), "123456 136");
    // A failed turn drops its own part of a merged broadcast, and nothing else.
    assert_eq!(told(&["a+1 a+2", "a+3 fail", "a+4"]), "124 124");
    assert_eq!(told(&["a-1", "a-2 a+3 fail", "a-4"]), " 14");
    // Fifty of them are one piece.
    let long = "a+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    assert_eq!(broadcast(&[long; 50]).2, 1);
    assert_eq!(broadcast(&[long; 50]).1.len(), 50 * 32);
}
