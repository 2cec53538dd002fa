//! Sending: a broadcast takes its share of each pass, and answers come first.
//!
//! Eleven sessions are on one topic, and three may be sent to in a pass. The test follows which
//! slots each pass sends to, in their order, and what is left for the next one.

use crate::core::Core;
use crate::ids::Slot;
use crate::input::Input;
use crate::limits::host::Limits;
use crate::limits::names::Limit;
use crate::store::kind::Kind;
use crate::test_support::{Stub, open, serve};
use crate::turn::effect::Broadcast;
use crate::turn::staging::Staging;
use greenroom_state::abi::{Action, action};

/// Code that puts each session on a topic. A line is told to all others; an empty one is
/// answered to its sender alone.
fn room(a: &Action<'_>, staging: &mut Staging<'_>) -> Result<(), String> {
    match (a.kind, a.data.len) {
        (action::OPENED, _) => _ = staging.subscribe(b"room"),
        (action::MESSAGE, 0) => _ = staging.send(b"answer\n"),
        (action::MESSAGE, _) => _ = staging.broadcast(b"room", b"news\n", Broadcast::OTHERS),
        _ => {}
    }
    Ok(())
}

/// Runs a pass with these lines, and returns the output that it sends, by slot. The kernel
/// takes all.
fn pass(core: &mut Core, now_ns: u64, lines: &[(u32, &[u8])]) -> Vec<(u32, String)> {
    core.handle(Input::PassBegins { now_ns });
    for &(slot, bytes) in lines {
        core.handle(Input::Received { slot: Slot(slot), bytes });
    }
    core.handle(Input::Cascade);
    core.handle(Input::Commit);
    let (mut sendable, mut sent) = (Vec::new(), Vec::new());
    core.take_sendable(&mut sendable);
    for slot in sendable {
        let Some(output) = core.output(slot, |pieces| pieces.concat()) else { continue };
        core.handle(Input::Sent { slot, bytes: output.len(), blocked: false });
        sent.push((slot.0, String::from_utf8(output).expect("text")));
    }
    sent
}

#[test]
fn a_broadcast_takes_its_share_of_each_pass_and_answers_come_first() {
    let limits = Limits { sends_at_once_max: 3, ..Limits::default() };
    let (mut core, service) = serve(limits, Stub(room));
    core.handle(Input::PassBegins { now_ns: 1 });
    open(&mut core, service, 0..11);
    assert_eq!(pass(&mut core, 2, &[]), []);

    // The first session speaks to the other ten. A session that speaks meanwhile is answered at
    // once, with what was on its way to it.
    let slots = |sent: &[(u32, String)]| sent.iter().map(|(slot, _)| *slot).collect::<Vec<_>>();
    let mut heard = pass(&mut core, 3, &[(0, b"x\n")]);
    assert_eq!(slots(&heard), [1, 2, 3]);
    // More sessions wait, so the next pass is due at once.
    assert_eq!(core.next_wake_ns(), Some(0));
    let second = pass(&mut core, 4, &[(9, b"\n"), (0, b"\n")]);
    assert_eq!(slots(&second), [9, 0, 4, 5, 6]);
    assert_eq!(second[0].1, "news\nanswer\n");
    assert_eq!(second[1].1, "answer\n");
    heard.extend(second.into_iter().filter(|(slot, _)| *slot != 0));
    // Two broadcasts that wait for one session are one sending.
    let third = pass(&mut core, 5, &[(0, b"x\n")]);
    assert_eq!(slots(&third), [7, 8, 9]);
    assert_eq!(third[0].1, "news\nnews\n");
    heard.extend(third);
    for now_ns in 6..9 {
        let more = pass(&mut core, now_ns, &[]);
        assert!(more.len() <= 3, "{more:?}");
        heard.extend(more);
    }
    assert_eq!(core.next_wake_ns(), None);
    let mut reached = Vec::new();
    core.take_reached(|limit, times| reached.push((limit, times)));
    // Reached in each pass but the last, which sends all that is left.
    assert_eq!(reached, [(Limit::SendsAtOnceMax, 5)]);
    for slot in 1..11 {
        // Each session hears both broadcasts, however often it was answered in between.
        let all: String = heard.iter().filter(|(s, _)| *s == slot).map(|(_, text)| &**text).collect();
        assert_eq!(all.matches("news").count(), 2, "session in slot {slot}");
    }
    // The limit gives way to the number of turns: as many others are sent to.
    let seven = pass(&mut core, 20, &[(0, &b"x\n".repeat(7))]);
    assert_eq!(seven.len(), 7);
    assert_eq!(pass(&mut core, 21, &[]).len(), 3);
    // A session with more than half of `output_bytes_pause` to send does not wait.
    let limits = Limits { output_bytes_pause: 8, ..core.limits().clone() };
    core.set_limits(limits.into());
    assert_eq!(pass(&mut core, 22, &[(0, b"x\n")]).len(), 10);
}

/// A peer that takes no output gets hundreds of short pieces, a pass each. They are merged, so they
/// take about their bytes of the store, and all bytes come in order once the peer takes them.
#[test]
fn short_pieces_for_a_peer_that_takes_none_are_merged() {
    let (mut core, service) = serve(Limits::default(), Stub(room));
    core.handle(Input::PassBegins { now_ns: 1 });
    open(&mut core, service, 0..2);
    core.handle(Input::Commit);
    let before = core.store().bytes();
    for now_ns in 2..2002 {
        core.handle(Input::PassBegins { now_ns });
        core.handle(Input::Received { slot: Slot(0), bytes: b"x\n" });
        core.handle(Input::Commit);
    }
    let bytes = 2000 * "news\n".len();
    let took = core.store().bytes() - before;
    assert!(took < 3 * bytes, "{took} bytes of the store for {bytes} of output");
    assert!(core.store().count(Kind::Output) < 80, "{} pieces", core.store().count(Kind::Output));
    let mut heard = String::new();
    while let Some(n) = core.output(Slot(1), |pieces| {
        pieces.iter().for_each(|p| heard += std::str::from_utf8(p).expect("text"));
        pieces.iter().map(|p| p.len()).sum()
    }) {
        core.handle(Input::Sent { slot: Slot(1), bytes: n, blocked: false });
    }
    assert_eq!(heard, "news\n".repeat(2000));
}
