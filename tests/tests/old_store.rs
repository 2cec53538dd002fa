//! Stores that earlier builds wrote, read by today's code.
//!
//! `tests/fixtures/store-1.bin` holds the records of a host that was built at commit 4a12723.
//! `store-1.json` says what is in them, as the code of that commit read it. Both are fixed: code
//! that cannot read them loses the sessions of a running host at its upgrade. A new kind of record,
//! or a new version of one, comes with a second pair of files.
//!
//! The memory is that of a real host (`greenroom serve`), read from its keeper while the worker was
//! in the middle of a pass: a turn had set a table entry, and the next turn of the pass had not
//! returned. Before that, the host had done this:
//!
//! - Service `room` ran its second generation, which had proved itself. Service `tally` had states
//!   and entries of older versions from its first generation, and its second one was on probation.
//!   One reload was refused. One configuration was put in force by SIGHUP.
//! - Turns that abort had killed the worker eight times. Three sessions and the service `room`
//!   itself were quarantined, one of the sessions before its first turn. Actions waited for them: a
//!   note, two published messages (one of them shared), a timer that was due, the end of a job that
//!   was lost.
//! - Two peers took no output, and had broadcasts among theirs; the session of one of them was
//!   closing. One session was closed and waited for its peer's end. One had half a line of input.
//!   One held its input. One was a connection that the host had made.
//! - Timers of a session and of the service were set. Jobs ran and waited for a thread, with and
//!   without `once`. Two connections were being made.
//!
//! The file lists the parts of the memory that are not zero: the length of the memory (u64), then
//! offset, length (u32 each) and bytes of every part, all little-endian.

use greenroom::config::Config;
use greenroom::protocol::admin::LedgerLine;
use greenroom::protocol::keeper::HeldPort;
use greenroom_core::core::Core;
use greenroom_core::core::Successor;
use greenroom_core::effects::job_forms::JobView;
use greenroom_core::effects::jobs::JobDeath;
use greenroom_core::framing::Framing;
use greenroom_core::input::Input;
use greenroom_core::ledger::Outcome;
use greenroom_core::limits::host::Limits;
use greenroom_core::operate::inspect::{Filter, OwnSlice, SessionView};
use greenroom_core::recovery::rebuild::Survivor;
use greenroom_core::recovery::reconcile::StreamCounts;
use greenroom_core::service::offer::{Build, Offer, Serving};
use greenroom_core::store::kind::Kind;
use greenroom_core::store::memory::Plain;
use greenroom_core::store::records::Store;
use greenroom_core::turn::code::{Batch, Code};
use greenroom_core::turn::staging::Staging;
use greenroom_state::abi::{Bytes, action};
use greenroom_state::compatibility::StateShape;
use greenroom_state::json::{bytes_to_json, to_json};
use greenroom_tests::root;
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex};

/// Nanoseconds of the host's clock at which the memory was read.
const NOW_NS: u64 = 3_184_733_065_623;
/// A time at which all timers are due, 100 days later.
const LATER_NS: u64 = NOW_NS + 100 * 86_400_000_000_000;

/// The memory, as the successor of the worker would have found it.
fn memory() -> Vec<u8> {
    let file = std::fs::read(root().join("tests/fixtures/store-1.bin")).expect("the fixture");
    let (len, mut rest) = file.split_first_chunk::<8>().expect("a length");
    let mut memory = vec![0; u64::from_le_bytes(*len) as usize];
    while let Some((at, more)) = rest.split_first_chunk::<4>() {
        let (len, more) = more.split_first_chunk::<4>().expect("a part's length");
        let (at, len) = (u32::from_le_bytes(*at) as usize, u32::from_le_bytes(*len) as usize);
        memory[at..at + len].copy_from_slice(&more[..len]);
        rest = &more[len..];
    }
    memory
}

fn expected() -> Value {
    let json = std::fs::read(root().join("tests/fixtures/store-1.json")).expect("the fixture");
    serde_json::from_slice(&json).expect("JSON")
}

/// Recovers a core from a memory in which nothing is damaged.
fn recover(memory: &[u8], now_ns: u64) -> Successor {
    let limits = Limits::default();
    let found = Store::recover(Box::new(Plain::cut_after(memory, None)), limits.store_bytes_max);
    let found = found.expect("a store");
    assert_eq!(found.erased, []);
    let successor = Core::recover(limits, found, now_ns);
    assert_eq!(successor.lost, [""; 0]);
    successor
}

// --- what the records say ---------------------------------------------------------------------

/// Bytes in a comparison: text or base64; 200 bytes and more are their length and both ends.
fn bytes(bytes: &[u8]) -> Value {
    match bytes.len() {
        0..200 => bytes_to_json(bytes),
        len => json!([len, bytes_to_json(&bytes[..20]), bytes_to_json(&bytes[len - 20..])]),
    }
}

fn timers(all: &[(String, u64)]) -> Value {
    all.iter().map(|(name, in_ns)| (name.clone(), json!(in_ns))).collect::<Map<_, _>>().into()
}

fn jobs(all: &[JobView]) -> Value {
    all.iter().map(|j| json!([j.number, j.name])).collect()
}

fn session(view: SessionView) -> Value {
    let r = view.record;
    json!({
        "session": r.id,
        "service": view.service,
        "life": format!("{:?}", r.life),
        "peer": r.peer.to_string(),
        "peer_done": r.peer_done,
        "opened_turn_due": r.opened_turn_due,
        "outbound": r.outbound,
        "held": r.held,
        "opened_at_ms": r.opened_at_ms,
        "turns": r.turns,
        "bytes_in": r.bytes_in,
        "bytes_out": r.bytes_out,
        "quarantined": view.quarantined,
        "version": r.state_version,
        "fingerprint": r.state_fingerprint,
        "state": view.state.map(|s| to_json(&s).expect("MessagePack")),
        "input": bytes(&view.input),
        "output": bytes(&view.output),
        "topics": view.topics.iter().map(|t| String::from_utf8_lossy(t)).collect::<Value>(),
        "timers": timers(&view.timers),
        "actions": view.actions.iter().map(|a| json!([a.kind, a.from, a.name, bytes(&a.data)])).collect::<Value>(),
        "jobs": jobs(&view.jobs),
        "connects": view.connects.iter().map(|c| json!([c.number, c.service, c.addr])).collect::<Value>(),
    })
}

fn own(own: &OwnSlice) -> Value {
    json!({
        "timers": timers(&own.timers),
        "jobs": jobs(&own.jobs),
        "connects": own.connects.iter().map(|c| json!([c.number, c.service, c.addr])).collect::<Value>(),
    })
}

fn table(core: &Core, name: &str) -> Value {
    let (entries, next) = core.entries_from(name, b"");
    assert_eq!(next, None, "one slice holds the whole table");
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).expect("UTF-8");
    let value = |packed: &[u8]| match to_json(packed).expect("MessagePack") {
        Value::String(long) if long.len() >= 200 => bytes(long.as_bytes()),
        short => short,
    };
    json!({
        "versions": core.tables().counts(name).iter().map(|(v, n)| (v.to_string(), json!(n))).collect::<Map<_, _>>(),
        "entries": entries.iter().map(|(key, packed)| (text(key), value(packed))).collect::<Map<_, _>>(),
    })
}

/// The records of the host itself: JSON under a kind and a key.
fn host_records(core: &Core, kind: Kind) -> Value {
    let parsed =
        |(key, json): (u64, Vec<u8>)| json!([key, serde_json::from_slice::<Value>(&json).expect("JSON")]);
    core.host_records_from(kind, 0, usize::MAX).into_iter().map(parsed).collect()
}

fn contents(core: &Core) -> Value {
    let all = core.sessions_after(0, &Filter { contents: true, ..Filter::default() });
    assert_eq!(all.next, None, "one slice holds all sessions");
    let named = |name: &String| (name.clone(), table(core, name));
    let services = core.services().iter().map(|s| {
        let number = core.service_named(&s.offer.name).expect("a number");
        json!([s.offer.name, own(&core.of_service(number, None))])
    });
    json!({
        "sessions": all.items.into_iter().map(session).collect::<Value>(),
        "services": services.collect::<Value>(),
        "tables": core.table_names().iter().map(named).collect::<Map<_, _>>(),
        "libraries": host_records(core, Kind::Library),
        "ports": host_records(core, Kind::Ports),
        "config": host_records(core, Kind::Config),
        "ledger": host_records(core, Kind::Ledger),
        "served": core.connection_number(),
    })
}

// --- what becomes of them ---------------------------------------------------------------------

/// A handler that remembers what it is called with.
struct Recorder(Arc<Mutex<Vec<Value>>>);

impl Code for Recorder {
    fn run(&self, batch: &Batch<'_>, staging: &mut Staging<'_>) -> u32 {
        for a in batch.actions {
            // The old build had no such turn.
            if a.kind == action::STARTED {
                staging.turn_ok();
                continue;
            }
            let state = batch.state.map(|(version, s)| json!([version, to_json(s).expect("MessagePack")]));
            let session = if batch.session >> 63 == 1 { json!("room") } else { json!(batch.session) };
            let (name, data) = (lent(a.name), bytes(&lent(a.data)));
            let name = String::from_utf8(name).expect("UTF-8");
            let seen = json!([session, state, a.kind, a.from, a.detail, name, data]);
            self.0.lock().expect("one thread").push(seen);
            if !staging.turn_ok() {
                break;
            }
        }
        0
    }
}

/// A copy of bytes that a call lends.
fn lent(b: Bytes<'_>) -> Vec<u8> {
    if b.len == 0 {
        return Vec::new();
    }
    // SAFETY: the core passes bytes that live as long as the batch, and their length.
    unsafe { std::slice::from_raw_parts(b.ptr, b.len) }.to_vec()
}

/// The code of a library's only service.
fn build(name: &str, generation: u64, version: u32, seen: &Arc<Mutex<Vec<Value>>>) -> (Build, Serving) {
    let build = Build { library: name.into(), generation, hash: String::new() };
    let shape = StateShape { version, migrations: (1..version).collect(), ..StateShape::default() };
    let offer = Offer { shape, ..Offer::new(name, Framing::Lines { bytes_max: 1 << 20 }) };
    (build, vec![(offer, Box::new(Recorder(seen.clone())))])
}

/// Runs a pass. Returns what it called the handlers with.
fn pass(core: &mut Core, seen: &Mutex<Vec<Value>>, now_ns: u64, input: Option<Input<'_>>) -> Vec<Value> {
    core.handle(Input::PassBegins { now_ns });
    input.into_iter().for_each(|input| core.handle(input));
    core.handle(Input::Cascade);
    core.handle(Input::Commit);
    std::mem::take(&mut *seen.lock().expect("one thread"))
}

/// Goes on with everything that the records hold, as a worker would. Returns the calls of handlers,
/// and the jobs and connections that begin, by step.
fn go_on(core: &mut Core, survivors: &[Survivor]) -> Value {
    let seen = Arc::new(Mutex::new(Vec::new()));
    for (name, version) in [("room", 1), ("tally", 3)] {
        let (build, serving) = build(name, 2, version, &seen);
        core.go_on_with(&build, serving);
    }
    core.restart_jobs(JobDeath::OfNone);
    let all = core.sessions_after(0, &Filter { contents: true, ..Filter::default() }).items;
    for (s, view) in survivors.iter().zip(all) {
        // The kernel took all output that has no record, and gave out no more input.
        let sent = view.record.bytes_out - view.output.len() as u64;
        assert_eq!(
            core.reconcile(s.slot, StreamCounts::Kernel { read: view.record.bytes_in, sent: Some(sent) }),
            Ok(0),
            "session {}",
            s.id
        );
    }
    let first = pass(core, &seen, NOW_NS, None);
    let begun: Value = core.take_jobs().iter().map(|j| json!([j.number, j.name, bytes(&j.input)])).collect();
    let dials: Value =
        core.take_connects().iter().map(|d| json!([d.number, d.target.addr.stored_text()])).collect();
    let half = core.sessions_after(0, &Filter { contents: true, ..Filter::default() }).items;
    let half = half.iter().position(|v| v.input.starts_with(b"hhh")).expect("half a line");
    let input = Input::Received { slot: survivors[half].slot, bytes: b" and its end\n" };
    let line = pass(core, &seen, NOW_NS + 1, Some(input));
    // The next build is given what waited in quarantine.
    let (next, serving) = build("room", 3, 1, &seen);
    core.adopt(&next, serving);
    let adopted = [2, 3, 4].map(|n| pass(core, &seen, NOW_NS + n, None)).concat();
    // Timers fire in the first pass of a time, and deadlines are judged in the next one.
    let timers = pass(core, &seen, LATER_NS, None);
    let later = [pass(core, &seen, LATER_NS + 1, None), timers].concat();
    json!({
        "first_pass": first,
        "jobs": begun,
        "connects": dials,
        "rest_of_a_line": line,
        "next_build": adopted,
        "after_100_days": later,
    })
}

// --- the tests --------------------------------------------------------------------------------

/// Compares part by part, so that a failure shows the part.
#[track_caller]
fn same(found: &Value, expected: &Value) {
    let (Value::Object(found), Value::Object(expected)) = (found, expected) else { panic!("two objects") };
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (part, value) in expected {
        match (value, &found[part]) {
            (Value::Array(expected), Value::Array(found)) => {
                expected.iter().zip(found).for_each(|(e, f)| assert_eq!(f, e, "{part}"));
                assert_eq!(found.len(), expected.len(), "{part}");
            }
            (expected, found) => assert_eq!(found, expected, "{part}"),
        }
    }
}

#[test]
fn an_old_store_holds_what_was_written() {
    let found = Store::recover(Box::new(Plain::cut_after(&memory(), None)), 0).expect("a store");
    let missing: Vec<u8> =
        (1..=19).filter(|kind| !found.records.iter().any(|r| r.kind as u8 == *kind)).collect();
    assert!(missing.is_empty(), "kinds of records without one: {missing:?}");
    same(&contents(&recover(&memory(), NOW_NS).core), &expected()["contents"]);
}

/// Records that the core keeps for the shell, in the shell's own types.
#[test]
fn the_shell_reads_its_records_in_an_old_store() {
    let core = recover(&memory(), NOW_NS).core;
    let Value::Array(config) = host_records(&core, Kind::Config) else { panic!("records") };
    let config: Config = serde_json::from_value(config[0][1]["config"].clone()).expect("a configuration");
    assert_eq!((config.watch, config.limits.output_bytes_pause), (false, 4096));
    assert_eq!(config.service["room"].limits.actions_pending_max, Some(200));
    let Value::Array(ports) = host_records(&core, Kind::Ports) else { panic!("records") };
    let ports: Vec<HeldPort> = serde_json::from_value(ports[0][1].clone()).expect("ports");
    let ports: Vec<_> = ports.iter().map(|p| (p.port.0.as_str(), p.addr.stored_text())).collect();
    let at = |service, addr: &str| (service, addr.to_owned());
    assert_eq!(
        ports,
        [at("room", "127.0.0.1:41001"), at("room", "[::1]:41001"), at("tally", "127.0.0.1:41002")]
    );
    let Value::Array(ledger) = host_records(&core, Kind::Ledger) else { panic!("records") };
    let line = |v: &Value| serde_json::from_value::<LedgerLine>(v[1].clone()).expect("a line");
    let outcomes: Vec<_> = ledger.iter().map(|v| line(v).report.outcome).collect();
    use Outcome::{Committed, Configured, Refused, Unchanged};
    assert_eq!(outcomes, [Committed, Committed, Unchanged, Committed, Configured, Committed, Refused]);
}

#[test]
fn a_successor_goes_on_with_an_old_store() {
    let Successor { mut core, survivors, .. } = recover(&memory(), NOW_NS);
    same(&go_on(&mut core, &survivors), &expected()["goes_on"]);
    // What it wrote over the old records is read, too.
    let again = recover(core.store().image(), LATER_NS);
    same(&contents(&again.core), &contents(&core));
}
