//! Measurement for `scripts/bench rehearsal`: passes of a loop while a candidate is rehearsed.
//!
//! The loop has many sessions in its store, and no sockets. It goes on working while a
//! candidate that migrates all of them is rehearsed in a child process. Prints one JSON object:
//! how long that took, and median and longest passes before, during and after.
//!
//! The records are a memory file as the worker's are, because the child reads its snapshot from
//! it.

use greenroom::memory::board::Board;
use greenroom::memory::records::{Region, memory_file};
use greenroom::plugin::ffi::library::Library;
use greenroom::plugin::inspect::inspect;
use greenroom::plugin::live::LiveState;
use greenroom::plugin::trial::{self, Snapshot, Trial};
use greenroom_core::core::Core;
use greenroom_core::ids::Slot;
use greenroom_core::input::Input;
use greenroom_core::limits::host::Limits;
use greenroom_core::service::offer::Build;
use greenroom_core::store::layout::memory_bytes;
use greenroom_core::store::records::Store;
use greenroom_core::tables::prefixes::DroppedPrefixes;
use greenroom_tests::built;
use greenroom_tests::fixture::{Fixture, Optimize, tally_source};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Sessions that say something in a pass.
const BUSY: usize = 50;

fn main() {
    let sessions: u32 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    // The second build differs by its version and a migration that changes nothing: cost
    // without work.
    let fixture = Fixture::with(Optimize::AsReleased, "rehearsed_bench", &tally_source("tally", "one"));
    let first = fixture.build_as("first.so");
    let migrates = "    const STATE_VERSION: u32 = 2;\n    fn migrations() -> greenroom_handler::Migrations {\n        \
                    greenroom_handler::Migrations::none().from(1, |old: Count| Ok(old)).back(2, |new: Count| Ok(new))\n    }\n    type State";
    fixture.write(&tally_source("tally", "two").replacen("    type State", migrates, 1));
    let second = fixture.build_as("second.so");
    let note = |path: &std::path::Path| {
        inspect(&std::fs::read(path).expect("a library"), path).expect("a note").note
    };

    let limits = Limits::default();
    let records = memory_file("records").expect("memory");
    let max = memory_bytes(limits.store_bytes_max);
    let region = Region::open(records.try_clone().expect("a descriptor"), max).expect("a region");
    let Ok(store) = Store::create(Box::new(region), limits.store_bytes_max) else { panic!("no room") };
    let mut core = Core::with_store(limits.clone(), store);
    let settings = BTreeMap::new();
    let library = Library::load(&first, &note(&first).entry).expect("the library");
    let serving = library.create(&settings, Board::unread().expect("a board")).expect("its instances");
    let offers: Vec<_> = serving.iter().map(|(offer, _)| offer.clone()).collect();
    core.adopt(&Build { library: "bench".into(), generation: 1, hash: String::new() }, serving);
    let service = core.service_named("tally").expect("the service");
    let peer: greenroom_state::address::Peer = "127.0.0.1:9".parse().expect("an address");
    let line = |core: &mut Core, slot: u32| {
        core.handle(Input::Received { slot: Slot(slot), bytes: b"something to remember\n" });
    };
    let mut sendable = Vec::new();
    let mut effects = Vec::new();
    // Sent output is gone at once, as the shell does with a socket that takes everything.
    let mut end_pass = |core: &mut Core| {
        core.handle(Input::Commit);
        core.take_commands(&mut effects);
        effects.clear();
        core.take_sendable(&mut sendable);
        for slot in sendable.drain(..) {
            while let Some(bytes) = core.output(slot, |pieces| pieces.iter().map(|p| p.len()).sum::<usize>())
            {
                core.handle(Input::Sent { slot, bytes, blocked: false });
            }
        }
    };
    for slot in 0..sessions {
        core.handle(Input::Opened {
            slot: Slot(slot),
            id: u64::from(slot) + 1,
            service,
            kind: "",
            peer: peer.clone(),
            at_ms: 0,
            tls: None,
        });
        line(&mut core, slot);
        if slot % 1000 == 999 {
            end_pass(&mut core);
        }
    }
    end_pass(&mut core);

    let mut next = 0;
    // Times are taken by the clock and by the CPU time of the loop's thread: others may have
    // the core.
    let cpu = || {
        let t = thread_time();
        Duration::new(t.0, t.1)
    };
    let mut pass = |core: &mut Core| {
        let (begun, cpu_begun) = (Instant::now(), cpu());
        core.handle(Input::PassBegins { now_ns: 1 });
        for _ in 0..BUSY {
            // A prime step spreads the busy sessions over the store.
            next = (next + 7919) % sessions;
            line(core, next);
        }
        end_pass(core);
        (begun.elapsed(), cpu() - cpu_begun)
    };
    let us = |d: Duration| d.as_nanos() as f64 / 1000.0;
    // Median and longest, by the clock and in CPU time.
    let told = |all: &[(Duration, Duration)]| {
        let sorted = |which: fn(&(Duration, Duration)) -> Duration| {
            let mut all: Vec<_> = all.iter().map(which).collect();
            all.sort_unstable();
            [us(all[all.len() / 2]), us(all[all.len() - 1])]
        };
        let (clock, cpu) = (sorted(|p| p.0), sorted(|p| p.1));
        format!(
            "{{\"median\":{:.1},\"max\":{:.1},\"cpu_median\":{:.1},\"cpu_max\":{:.1}}}",
            clock[0], clock[1], cpu[0], cpu[1]
        )
    };
    let mut without = Vec::new();
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        without.push(pass(&mut core));
    }

    let begun = Instant::now();
    // The pin keeps every record of this epoch for the child, until the unpin below.
    let epoch = core.pin();
    let pin = begun.elapsed();
    let live = LiveState {
        epoch,
        limits: limits.clone(),
        service_limits: BTreeMap::new(),
        offers,
        newer: None,
        serving: None,
        sessions: u64::from(sessions),
        entries: BTreeMap::new(),
        dropped: DroppedPrefixes::default(),
    };
    let snapshot = Snapshot { records, live };
    let entry = note(&second).entry;
    let (done, tried) = channel();
    std::thread::spawn(move || {
        let binary = File::open(built("greenroom")).expect("the binary");
        let begun = Instant::now();
        let trial = Trial {
            copy: &second,
            entry: &entry,
            settings: &BTreeMap::new(),
            snapshot: Some(&snapshot),
            recording: None,
            limits: &limits,
        };
        let result = trial::run(&binary, &trial, |_, _| {});
        let _ = done.send((result, begun.elapsed()));
    });
    let mut during = Vec::new();
    let (result, took) = loop {
        during.push(pass(&mut core));
        if let Ok(tried) = tried.try_recv() {
            break tried;
        }
    };
    let begun = Instant::now();
    let held = core.unpin(epoch);
    let unpin = begun.elapsed();
    let mut after = Vec::new();
    for _ in 0..1000 {
        after.push(pass(&mut core));
    }
    let rehearsal = result.expect("a candidate").rehearsal.expect("a rehearsal");
    assert!(held && rehearsal.failed.is_none() && rehearsal.migrated == u64::from(sessions), "{rehearsal:?}");
    println!(
        "{{\"sessions\":{sessions},\"trial_ms\":{:.1},\"rehearsal_ms\":{},\"pin_us\":{:.1},\"unpin_us\":{:.1},\"pass_us\":{},\
         \"pass_during_us\":{},\"pass_after_us\":{}}}",
        us(took) / 1000.0,
        rehearsal.ms,
        us(pin),
        us(unpin),
        told(&without),
        told(&during),
        told(&after)
    );
}

/// Reads CLOCK_THREAD_CPUTIME_ID: seconds and nanoseconds.
fn thread_time() -> (u64, u32) {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written there.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut t) };
    (t.tv_sec as u64, t.tv_nsec as u32)
}
