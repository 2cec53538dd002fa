//! Relays: sessions that pass data on as notes, faster than their notes are delivered.
//!
//! A pass delivers one batch of notes, while every near peer is read. The kernel takes output only
//! when a test says so.

use crate::core::Core;
use crate::ids::Slot;
use crate::input::Input;
use crate::limits::host::Limits;
use crate::limits::names::Limit;
use crate::session::blocked::Blocked;
use crate::test_support::{Stub, open, send, serve};
use crate::turn::staging::Staging;
use greenroom_state::abi::{Action, action};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pairs of sessions. The far side of the near session in slot `n` is in slot `n + PAIRS`.
const PAIRS: u32 = 4;
/// Bytes of a note.
const NOTE_BYTES: usize = 4000;

/// Core with pairs of sessions, and the number of notes that were asked for. A line names the
/// session that gets a note. `answers`: a note becomes output.
fn relay(answers: bool) -> (Core, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let code = move |a: &Action<'_>, staging: &mut Staging<'_>| {
        match (a.kind, a.data.len) {
            (action::MESSAGE, len) => {
                // Lines of as many bytes as the place of the far session.
                let far = len as u64 + 1;
                count.fetch_add(1, Ordering::Relaxed);
                staging.note(far, &[b'n'; NOTE_BYTES]);
                staging.wait_for(far);
            }
            (action::NOTE, len) => {
                // A slow turn ends the stage: one batch of notes has its turns in a pass.
                staging.tell_time(u64::MAX);
                if answers {
                    staging.send(&vec![b'o'; len]);
                }
            }
            _ => {}
        }
        Ok(())
    };
    let limits = Limits { pass_us: 10, sends_at_once_max: 1000, ..Limits::default() };
    let (mut core, service) = serve(limits, Stub(code));
    core.handle(Input::PassBegins { now_ns: 1 });
    open(&mut core, service, 0..2 * PAIRS);
    core.handle(Input::Commit);
    (core, asked)
}

/// Runs a pass in which every near peer that may be read sends a batch of lines. Returns whether
/// one was read.
fn pass(core: &mut Core, now_ns: u64, lines: usize) -> bool {
    core.handle(Input::PassBegins { now_ns });
    let mut is_read = false;
    for near in (0..PAIRS).filter(|_| lines > 0) {
        if core.wants_input(Slot(near)) {
            let line = "x".repeat((near + PAIRS) as usize) + "\n";
            core.handle(Input::Received { slot: Slot(near), bytes: line.repeat(lines).as_bytes() });
            is_read = true;
        }
    }
    core.handle(Input::Cascade);
    core.handle(Input::Commit);
    is_read
}

/// Times that notes were dropped since the last question.
fn dropped(core: &mut Core) -> u64 {
    let mut all = 0;
    let is_of = |l| l == Limit::ActionsPendingMax || l == Limit::ActionsPendingBytesMax;
    core.take_reached(|l, times| all += if is_of(l) { times } else { 0 });
    all
}

/// Peers of the far side that take nothing stop the near side at `output_bytes_pause` and one
/// batch, counted with the notes under way. Once they read, every byte arrives.
#[test]
fn a_relay_holds_no_more_than_a_pause_and_a_batch() {
    let (mut core, asked) = relay(true);
    let mut now_ns = 500;
    (2..now_ns).for_each(|now_ns| _ = pass(&mut core, now_ns, 64));
    assert!(!pass(&mut core, now_ns, 64), "nothing holds the near side up");
    assert_eq!(dropped(&mut core), 0);
    let most = Limits::default().output_bytes_pause + 64 * 1024 + NOTE_BYTES;
    for far in PAIRS..2 * PAIRS {
        let held = core.sessions().get(Slot(far)).expect("it is open").unsent() as usize;
        assert!(held > most / 2 && held <= most, "{held} bytes are held");
    }

    let mut sent = send(&mut core);
    for _ in 0..500 {
        now_ns += 1;
        pass(&mut core, now_ns, 0);
        sent += send(&mut core);
    }
    // The rest of each read went on: nobody waits for anything any more.
    assert!((0..PAIRS).all(|near| core.wants_input(Slot(near))));
    assert_eq!(sent, asked.load(Ordering::Relaxed) * NOTE_BYTES);
    assert_eq!(dropped(&mut core), 0);
}

/// Notes that come faster than they are delivered hold the near side up before one is dropped,
/// though peers take all output at once, or though no output follows. Their turns let it go on.
#[test]
fn notes_hold_a_relay_up_before_one_is_dropped() {
    for answers in [true, false] {
        let (mut core, asked) = relay(answers);
        let is_held_up = |core: &Core, near| {
            core.sessions().get(near).is_some_and(|s| s.is_blocked(Blocked::OtherSessionsOutput))
        };
        let (mut held_up, mut sent) = (false, 0);
        for now_ns in 2..1000 {
            pass(&mut core, now_ns, 64);
            held_up |= is_held_up(&core, Slot(0));
            sent += send(&mut core);
        }
        assert_eq!(dropped(&mut core), 0);
        assert!(held_up);
        for now_ns in 1000..2000 {
            pass(&mut core, now_ns, 0);
            sent += send(&mut core);
        }
        assert!((0..PAIRS).all(|near| core.wants_input(Slot(near))));
        assert_eq!(sent, if answers { asked.load(Ordering::Relaxed) * NOTE_BYTES } else { 0 });
    }
}
