//! Effects on other sessions: what reaches them, and what does not cross from library to library.

use crate::core::Core;
use crate::framing::Framing;
use crate::ids::{ServiceId, Slot};
use crate::input::Input;
use crate::limits::host::Limits;
use crate::service::offer::{Build, Offer};
use crate::session::life::Life;
use crate::test_support::{Stub, open};
use crate::turn::code::Code;
use crate::turn::effect::Broadcast;
use crate::turn::staging::Staging;
use greenroom_state::abi::{Action, action, status};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Words of messages to come, for all services.
type Script = Arc<Mutex<VecDeque<&'static str>>>;

/// Handler of the tests. All sessions are on topic `t` and answer every action by its kind. A
/// message's turn takes the next word of the script: what it asks for, and another session.
fn code(script: Script) -> impl Code {
    Stub(move |a: &Action<'_>, s: &mut Staging<'_>| {
        match a.kind {
            action::OPENED => _ = s.subscribe(b"t"),
            action::MESSAGE => {
                let word = script.lock().unwrap().pop_front().unwrap_or("x0");
                let to = word[1..].parse().expect("a number");
                let done = match word.as_bytes()[0] {
                    b'b' => s.broadcast(b"t", b"b", Broadcast::ALL),
                    b'a' => s.broadcast_any([&b"t"[..], b"u", b"t"].into_iter(), b"a", Broadcast::ALL),
                    b's' => s.send_to(to, b"s", Broadcast::ALL),
                    b'c' => s.note(to, b"") + s.close_session(to),
                    b'w' => s.wake(to) + s.wake(to),
                    b'r' => s.register(b"name").map_or_else(|e| e, |_| status::OK),
                    _ => status::OK,
                };
                if done != status::OK {
                    return Err(format!("status {done}"));
                }
                s.send(b".");
            }
            action::NOTE => _ = s.send(b"n"),
            action::WOKEN => {
                let holder = s.whereis(b"name").unwrap_or(0);
                s.send(format!("w{holder}").as_bytes());
            }
            _ => {}
        }
        Ok(())
    })
}

/// Core with sessions 1 and 2 of one service, 3 of another one of the same library, and 4 of
/// another library.
fn core(words: &[&'static str]) -> Core {
    let script = Script::new(Mutex::new(words.iter().copied().collect()));
    let code = || -> Box<dyn Code> { Box::new(code(script.clone())) };
    let mut core = Core::new(Limits::default());
    let offer = |name: &str| Offer::new(name, Framing::Lines { bytes_max: 9 });
    let build = |library: &str| Build { library: library.into(), generation: 1, hash: String::new() };
    core.adopt(&build("l"), vec![(offer("one"), code()), (offer("two"), code())]);
    core.adopt(&build("m"), vec![(offer("other"), code())]);
    let service = |core: &Core, name| core.service_named(name).expect("it was adopted");
    core.handle(Input::PassBegins { now_ns: 1 });
    for (name, slots) in [("one", 0..2), ("two", 2..3), ("other", 3..4)] {
        let of: ServiceId = service(&core, name);
        open(&mut core, of, slots);
    }
    core.handle(Input::Commit);
    core
}

/// Runs messages of session 1 in a pass, and returns what each session has to read by then.
fn told(core: &mut Core, messages: usize) -> [String; 4] {
    core.handle(Input::Received { slot: Slot(0), bytes: &b"\n".repeat(messages) });
    core.handle(Input::Cascade);
    core.handle(Input::Commit);
    output(core)
}

fn output(core: &Core) -> [String; 4] {
    let text = |pieces: &[&[u8]]| String::from_utf8(pieces.concat()).expect("text");
    [0, 1, 2, 3].map(|slot| core.output(Slot(slot), text).unwrap_or_default())
}

#[test]
fn topics_sends_wakes_and_ends_stay_in_their_library() {
    let after = |words: &[&'static str]| told(&mut core(words), words.len());
    assert_eq!(after(&["b0"]), ["b.", "b", "b", ""]);
    assert_eq!(after(&["a0"]), ["a.", "a", "a", ""]);
    assert_eq!(after(&["s2", "s3", "s4", "s9", "s1"]), ["....s.", "s", "s", ""]);
    assert_eq!(after(&["r0", "w2", "w3", "w4"]), ["....", "w1", "w0", ""]);
    // The note comes before the end.
    let mut core = core(&["c2", "c4"]);
    assert_eq!(told(&mut core, 2), ["..", "n", "", "n"]);
    let is_open = |slot| core.sessions().get(Slot(slot)).is_some_and(|s| s.life == Life::Open);
    assert_eq!([is_open(1), is_open(3)], [false, true]);
}

#[test]
fn a_session_that_wakes_itself_has_its_turn_in_the_next_pass_before_its_next_message() {
    let mut core = core(&["r0", "w1", "x0"]);
    assert_eq!(told(&mut core, 3)[0], "..");
    // Nothing but the next pass lets it go on, and that pass is due at once.
    core.handle(Input::Cascade);
    core.handle(Input::Commit);
    assert_eq!(output(&core)[0], "..");
    assert_eq!(core.next_wake_ns(), Some(0), "the next pass is due at once");
    core.handle(Input::PassBegins { now_ns: 2 });
    core.handle(Input::Cascade);
    core.handle(Input::Commit);
    assert_eq!(output(&core)[0], "..w1.");
}
