//! Shares of deletion: each pass makes progress, and no entry waits for something to happen.

use crate::core::Core;
use crate::ids::Slot;
use crate::input::Input;
use crate::limits::host::Limits;
use crate::store::kind::Kind;
use crate::test_support::{Stub, build, offer, open, serve};
use crate::turn::staging::Staging;
use greenroom_state::abi::{Action, action};
use greenroom_state::compatibility::TableShape;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

/// Runs a pass at a time of the calendar, in milliseconds, with a line from the first session.
fn pass(core: &mut Core, wall_ms: u64, line: &[u8]) {
    core.handle(Input::WallClock { unix_ns: wall_ms * MS });
    core.handle(Input::PassBegins { now_ns: 1 });
    if !line.is_empty() {
        core.handle(Input::Received { slot: Slot(0), bytes: line });
    }
    core.handle(Input::Cascade);
    core.handle(Input::Commit);
}

/// Code whose lines write as many entries as they have bytes, over in a second, and one that is
/// over a second later. Counts what it is told of.
fn mortal(told: Arc<AtomicUsize>) -> impl Fn(&Action<'_>, &mut Staging<'_>) -> Result<(), String> {
    move |a, staging| {
        match a.kind {
            action::MESSAGE => {
                for n in 0..a.data.len as u64 {
                    staging.table_put_until("t", &n.to_be_bytes(), b"v", 2000 * MS);
                }
                staging.table_put_until("t", b"late", b"v", 3000 * MS);
            }
            action::EXPIRED => _ = told.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
        Ok(())
    }
}

/// Core whose first session has written entries, a line of 9 of them.
fn with_entries(pass_us: u64, hears_of_expiry: bool) -> (Core, Arc<AtomicUsize>) {
    let told = Arc::new(AtomicUsize::new(0));
    let mut core = Core::new(Limits { pass_us, ..Limits::default() });
    let shape = offer().shape;
    let tables = vec![TableShape { name: "t".into(), shape, hears_of_expiry, reads_keys: false }];
    let offer = crate::service::offer::Offer { tables, ..offer() };
    core.adopt(&build(1), vec![(offer, Box::new(Stub(mortal(told.clone()))))]);
    let service = core.service_named("s").expect("it was adopted");
    core.handle(Input::WallClock { unix_ns: 1000 * MS });
    core.handle(Input::PassBegins { now_ns: 1 });
    open(&mut core, service, 0..1);
    core.handle(Input::Commit);
    pass(&mut core, 1000, b"123456789\n");
    while core.next_wake_ns() == Some(0) {
        pass(&mut core, 1000, b"");
    }
    (core, told)
}

/// With the smallest budget each pass deletes one entry, the next pass comes at once until all are
/// deleted, and then in time for the next deadline: whether the owner hears of it or not.
#[test]
fn entries_that_are_over_go_one_by_one() {
    for hears in [false, true] {
        let (mut core, told) = with_entries(1, hears);
        assert_eq!((core.tables().count("t"), core.next_wake_ns()), (10, Some(1 + 1000 * MS)));
        for left in (1..10).rev() {
            pass(&mut core, 2000, b"");
            assert_eq!(core.tables().count("t"), left, "one in each pass");
            assert!(left == 1 || core.next_wake_ns() == Some(0), "the rest is due at once");
        }
        while core.next_wake_ns() == Some(0) {
            pass(&mut core, 2000, b"");
        }
        assert_eq!(core.next_wake_ns(), Some(1 + 1000 * MS), "the next deadline");
        pass(&mut core, 3000, b"");
        assert_eq!((core.tables().count("t"), core.store().count(Kind::Expiring)), (0, 0));
        while core.next_wake_ns() == Some(0) {
            pass(&mut core, 3000, b"");
        }
        assert_eq!((told.load(Ordering::Relaxed), core.next_wake_ns()), (if hears { 10 } else { 0 }, None));
    }
}

/// Turns that fill and drop a table without a pause leave what some passes delete, and no more.
#[test]
fn drops_without_a_pause_do_not_fill_the_store() {
    let code = |a: &Action<'_>, staging: &mut Staging<'_>| {
        if a.kind == action::MESSAGE {
            staging.table_drop_prefix("t", b"");
            for n in 0..40u32 {
                staging.table_put("t", &n.to_be_bytes(), b"v");
            }
        }
        Ok(())
    };
    let (mut core, service) = serve(Limits { pass_us: 4, ..Limits::default() }, Stub(code));
    core.handle(Input::PassBegins { now_ns: 1 });
    open(&mut core, service, 0..1);
    for _ in 0..2000 {
        pass(&mut core, 1, b"\n");
    }
    let left = core.store().count(Kind::Entry) - 40;
    assert!((1000..256 * 45).contains(&left), "{left} entries wait for their deletion");
    while core.next_wake_ns() == Some(0) {
        pass(&mut core, 1, b"");
    }
    assert_eq!((core.store().count(Kind::Entry), core.store().count(Kind::Drop)), (40, 0));
}
