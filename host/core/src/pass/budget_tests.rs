//! Budget of a pass: work that costs much goes on in later passes, and loses nothing.
//!
//! A budget of 10 microseconds is a few dozen turns, so small numbers of sessions reach it.

use crate::core::Core;
use crate::ids::Slot;
use crate::input::Input;
use crate::limits::host::Limits;
use crate::limits::names::Limit;
use crate::test_support::{Stub, open, send, serve};
use crate::turn::effect::Broadcast;
use crate::turn::staging::Staging;
use greenroom_state::abi::{Action, action, status};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sessions on the topic.
const SESSIONS: u32 = 100;

/// Limits with so small a budget.
fn limits() -> Limits {
    Limits { pass_us: 10, sends_at_once_max: 1000, ..Limits::default() }
}

/// Runs a pass without input, and sends everything. Returns the bytes sent.
fn pass(core: &mut Core, now_ns: u64) -> usize {
    core.handle(Input::PassBegins { now_ns });
    core.handle(Input::Cascade);
    core.handle(Input::Commit);
    send(core)
}

/// Times that a limit was reached since the last question.
fn reached(core: &mut Core, limit: Limit) -> u64 {
    let mut all = 0;
    core.take_reached(|l, times| all += if l == limit { times } else { 0 });
    all
}

/// A peer that sends a hundred lines at once, each for a hundred others, does not have them all in
/// one pass, and a session that speaks meanwhile is answered in that pass.
#[test]
fn a_flood_of_broadcasts_takes_its_share_of_each_pass() {
    let room = |a: &Action<'_>, staging: &mut Staging<'_>| {
        match (a.kind, a.data.len) {
            (action::OPENED, _) => _ = staging.subscribe(b"room"),
            (action::MESSAGE, 0) => _ = staging.send(b"!\n"),
            // A table write in between keeps broadcasts from being merged.
            (action::MESSAGE, _) => {
                staging.broadcast(b"room", b"x\n", Broadcast::OTHERS);
                staging.table_put("t", b"k", b"v");
            }
            _ => {}
        }
        Ok(())
    };
    let (mut core, service) = serve(limits(), Stub(room));
    let mut now_ns = 1;
    core.handle(Input::PassBegins { now_ns });
    open(&mut core, service, 0..SESSIONS);
    core.handle(Input::Commit);
    let all = 100 * 2 * (SESSIONS as usize - 1);
    now_ns += 1;
    core.handle(Input::PassBegins { now_ns });
    core.handle(Input::Received { slot: Slot(0), bytes: "y\n".repeat(100).as_bytes() });
    assert!(core.pass_is_full(), "the shell reads no other connection in this pass");
    core.handle(Input::Commit);
    let mut sent = send(&mut core);
    assert!(0 < sent && sent < all / 10, "{sent} of {all} bytes in the first pass");
    let mut passes = 1;
    while sent < all {
        assert_eq!(core.next_wake_ns(), Some(0));
        (passes, now_ns) = (passes + 1, now_ns + 1);
        core.handle(Input::PassBegins { now_ns });
        assert!(!core.pass_is_full(), "connections have a budget of their own");
        core.handle(Input::Received { slot: Slot(1), bytes: b"\n" });
        core.handle(Input::Cascade);
        core.handle(Input::Commit);
        let answers = send(&mut core);
        assert!(answers >= 2, "the other session is answered in each pass");
        sent += answers - 2;
        assert!(passes < 1000, "it hangs");
    }
    assert_eq!(sent, all);
    assert!(passes > 10, "{passes} passes");
    assert!(reached(&mut core, Limit::PassUs) >= passes - 2);
}

/// A host that stops gives every session one last turn, some in each pass. Nobody hears the
/// good-bye of another one.
#[test]
fn a_stop_goes_on_in_the_next_passes_and_costs_each_session_one_turn() {
    let last = Arc::new(AtomicUsize::new(0));
    let count = last.clone();
    let room = move |a: &Action<'_>, staging: &mut Staging<'_>| {
        match a.kind {
            action::OPENED => _ = staging.subscribe(b"room"),
            action::CLOSED => {
                count.fetch_add(1, Ordering::Relaxed);
                staging.broadcast(b"room", b"bye\n", Broadcast::OTHERS);
                staging.send(b"end\n");
            }
            _ => _ = staging.send(b"!\n"),
        }
        Ok(())
    };
    let (mut core, service) = serve(limits(), Stub(room));
    core.handle(Input::PassBegins { now_ns: 1 });
    open(&mut core, service, 0..SESSIONS);
    core.handle(Input::Commit);
    core.handle(Input::PassBegins { now_ns: 2 });
    core.handle(Input::Stop);
    let first = last.load(Ordering::Relaxed);
    assert!(0 < first && first < SESSIONS as usize, "{first} last turns in the first pass");
    // A session that waits for its last turn has no other one before it.
    let waits = Slot(SESSIONS - 1);
    assert!(!core.wants_input(waits));
    core.handle(Input::Commit);
    let (mut sent, mut now_ns) = (send(&mut core), 2);
    while last.load(Ordering::Relaxed) < SESSIONS as usize {
        assert_eq!(core.next_wake_ns(), Some(0));
        now_ns += 1;
        sent += pass(&mut core, now_ns);
        assert!(now_ns < 1000, "it hangs");
    }
    sent += pass(&mut core, now_ns + 1);
    assert_eq!(last.load(Ordering::Relaxed), SESSIONS as usize);
    assert_eq!(sent, SESSIONS as usize * "end\n".len());
}

/// Peers that take nothing are closed over several passes. One that takes its output meanwhile goes
/// on.
#[test]
fn sessions_over_their_output_limit_are_closed_some_in_each_pass() {
    let room = |a: &Action<'_>, staging: &mut Staging<'_>| {
        match a.kind {
            action::OPENED => _ = staging.subscribe(b"room"),
            action::CLOSED => _ = staging.broadcast(b"gone", b"bye\n", Broadcast::OTHERS),
            _ => _ = staging.broadcast(b"room", &[b'x'; 600], Broadcast::OTHERS),
        }
        Ok(())
    };
    let limits = Limits { output_bytes_pause: 500, output_bytes_max: 1000, ..limits() };
    let (mut core, service) = serve(limits, Stub(room));
    core.handle(Input::PassBegins { now_ns: 1 });
    open(&mut core, service, 0..SESSIONS);
    core.handle(Input::Commit);
    let mut now_ns = 1;
    for _ in 0..2 {
        now_ns += 1;
        core.handle(Input::PassBegins { now_ns });
        core.handle(Input::Received { slot: Slot(0), bytes: b"\n" });
    }
    let left = core.sessions().len();
    assert!(left > SESSIONS as usize / 2 && left < SESSIONS as usize, "{left} left");
    core.handle(Input::Commit);
    core.handle(Input::Sent { slot: Slot(5), bytes: 600, blocked: false });
    while core.sessions().len() > 2 {
        assert_eq!(core.next_wake_ns(), Some(0));
        now_ns += 1;
        core.handle(Input::PassBegins { now_ns });
        assert!(!core.pass_is_full(), "connections are read beside");
        core.handle(Input::Commit);
        assert!(now_ns < 1000, "it hangs");
    }
    assert_eq!(core.sessions().slots().collect::<Vec<_>>(), [Slot(0), Slot(5)]);
    assert!(core.wants_input(Slot(5)));
}

/// A turn that asks for effects without bytes, without end, is refused one; and so is a turn that
/// reaches too many sessions.
#[test]
fn effects_without_bytes_and_recipients_have_limits() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let code = move |a: &Action<'_>, staging: &mut Staging<'_>| {
        match (a.kind, a.data.len) {
            (action::OPENED, _) => _ = staging.subscribe(b"room"),
            (action::MESSAGE, 0) => {
                let asked = (0..1_000_000).take_while(|_| staging.wait_for(7) == status::OK).count();
                count.store(asked, Ordering::Relaxed);
            }
            (action::MESSAGE, _) => {
                let room = |staging: &mut Staging<'_>| {
                    staging.broadcast(b"room", b"x\n", Broadcast::OTHERS) == status::OK
                };
                let asked =
                    (0..100).take_while(|_| room(staging) && staging.wait_for(7) == status::OK).count();
                count.store(asked, Ordering::Relaxed);
            }
            _ => {}
        }
        Ok(())
    };
    let limits = Limits { turn_recipients_max: 30, ..Limits::default() };
    let (mut core, service) = serve(limits, Stub(code));
    core.handle(Input::PassBegins { now_ns: 1 });
    open(&mut core, service, 0..10);
    core.handle(Input::Received { slot: Slot(0), bytes: b"\n" });
    let asked = refused.load(Ordering::Relaxed);
    assert!((10_000..40_000).contains(&asked), "{asked} effects in one turn");
    core.handle(Input::Received { slot: Slot(0), bytes: b"x\n" });
    assert_eq!(refused.load(Ordering::Relaxed), 3, "broadcasts to ten sessions each");
    core.handle(Input::Commit);
    assert_eq!(reached(&mut core, Limit::TurnRecipientsMax), 1);
}

/// Much output for many sessions is sent a share at a time: the kernel copies what it takes. All of
/// it is sent, each session has its turn, and one that speaks is answered at once.
#[test]
fn much_output_of_many_sessions_takes_its_share_of_each_pass() {
    const BYTES: usize = 60_000;
    let room = |a: &Action<'_>, staging: &mut Staging<'_>| {
        match (a.kind, a.data.len) {
            (action::OPENED, _) => _ = staging.subscribe(b"room"),
            (action::MESSAGE, 0) => _ = staging.send(b"!\n"),
            (action::MESSAGE, _) => _ = staging.broadcast(b"room", &[b'x'; BYTES], Broadcast::OTHERS),
            _ => {}
        }
        Ok(())
    };
    // A share of 500,000 bytes, and no other bound.
    let limits = Limits { pass_us: 500, sends_at_once_max: 1, output_bytes_pause: 65_536, ..limits() };
    let (mut core, service) = serve(limits, Stub(room));
    let mut now_ns = 1;
    core.handle(Input::PassBegins { now_ns });
    open(&mut core, service, 0..SESSIONS);
    core.handle(Input::Commit);
    let mut step = |core: &mut Core, slot: u32, line: &[u8]| {
        now_ns += 1;
        core.handle(Input::PassBegins { now_ns });
        if !line.is_empty() {
            core.handle(Input::Received { slot: Slot(slot), bytes: line });
        }
        core.handle(Input::Cascade);
        core.handle(Input::Commit);
        let mut sendable = Vec::new();
        core.take_sendable(&mut sendable);
        let mut sent = 0;
        for slot in &sendable {
            while let Some(n) = core.output(*slot, |pieces| pieces.iter().map(|p| p.len()).sum::<usize>()) {
                core.handle(Input::Sent { slot: *slot, bytes: n, blocked: false });
                sent += n;
            }
        }
        (sendable, sent)
    };
    let all = BYTES * (SESSIONS as usize - 1);
    let (_, mut sent) = step(&mut core, 0, b"y\n");
    let mut passes = 1;
    while sent < all {
        assert_eq!(core.next_wake_ns(), Some(0));
        let (first, more) = step(&mut core, 5, b"\n");
        assert!(first.contains(&Slot(5)), "who speaks is answered in that pass");
        assert!(more <= 500_000 + 3 * BYTES, "{more} bytes in a pass");
        (sent, passes) = (sent + more - 2, passes + 1);
    }
    assert!((all / 500_000..=all / 400_000).contains(&passes), "{passes} passes");
}

/// A turn may not take a refused call for done: half of what it asked for would be.
#[test]
fn a_turn_that_goes_on_behind_a_refused_call_fails() {
    let code = |a: &Action<'_>, staging: &mut Staging<'_>| {
        if a.kind == action::MESSAGE {
            staging.send(b"half\n");
            // Refused if the line is longer than a name may be. Nobody looks at the answer.
            let name = "n".repeat(a.data.len);
            let _ = staging.start_job(&name, b"", false);
        }
        Ok(())
    };
    let (mut core, service) = serve(Limits { job_name_bytes_max: 3, ..limits() }, Stub(code));
    core.handle(Input::PassBegins { now_ns: 1 });
    open(&mut core, service, 0..1);
    core.handle(Input::Received { slot: Slot(0), bytes: b"job\nlonger\n" });
    core.handle(Input::Commit);
    assert_eq!(send(&mut core), "half\n".len());
    assert_eq!((core.services()[0].faults, core.take_jobs().len()), (1, 1));
}
