//! Kills of the worker, at random and at each point of its work, under load, with swaps, upgrades
//! and mishaps of ordinary life in between. No session may notice.
//!
//! `GREENROOM_KILLS=N` and `GREENROOM_SEED=N` make it another run; `scripts/soak` a long one.

use greenroom_tests::chain::{self, Ended, Findings, Load};
use greenroom_tests::host::Host;
use greenroom_tests::mishaps::{self, LogReader};
use greenroom_tests::wait_for;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const POINTS: [&str; 11] = [
    "noted",
    "read",
    "ran",
    "commit",
    "committed",
    "sent",
    "flushed",
    "passed",
    "recovered",
    "reconciled",
    "caught-up",
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |n| n.parse().expect("a number"))
}

/// A line for each worker: killed at a point, sooner or later, or from outside.
fn plan(rng: &mut fastrand::Rng, workers: u64) -> String {
    let mut plan = String::from("from-outside\n");
    for _ in 0..workers {
        let line = match rng.u8(0..5) {
            0..2 => "from-outside".to_owned(),
            _ => {
                let point = rng.choice(POINTS).expect("points");
                // What a successor passes once, it dies of at once.
                let once = ["recovered", "reconciled", "caught-up"].contains(&point);
                format!("{point} {}", if once { 0 } else { rng.u32(0..300) })
            }
        };
        let _ = writeln!(plan, "{line}");
    }
    plan
}

fn host_status(host: &Host) -> (i32, u64) {
    let status = host.json(&["status", "--json"]);
    let of = |key: &str| status["host"][key].as_i64().expect(key);
    (of("worker_pid") as i32, of("workers_before") as u64)
}

/// Mishaps between two kills, each of which may be there when the worker dies.
fn befall(host: &Host, log: &LogReader, rng: &mut fastrand::Rng) {
    let (pid, _) = host_status(host);
    // No process, or this one's group.
    if pid <= 0 {
        return;
    }
    let time = Duration::from_millis(rng.u64(1..40));
    let either = if rng.bool() { pid } else { host.pid() as i32 };
    match rng.u8(0..12) {
        0..2 => mishaps::fill_descriptor_table(either, time),
        2 => mishaps::take_memory(pid),
        3 => mishaps::clean_copies(host, rng.bool()),
        4 => mishaps::stop(either, time),
        5 => log.block(true),
        6 => log.block(false),
        _ => {}
    }
}

/// Waits until the worker has died of its plan, for a while, and kills it if it hasn't.
fn kill_worker(host: &Host, rng: &mut fastrand::Rng) {
    let (pid, before) = host_status(host);
    let wait = Instant::now() + Duration::from_millis(rng.u64(1..60));
    while Instant::now() < wait {
        if host_status(host).1 != before {
            return;
        }
    }
    if pid > 0 {
        // SAFETY: kill has no preconditions. Pids go up, so that the number of a worker that was
        // replaced meanwhile is nobody's.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

fn table(dump: &Value, name: &str) -> BTreeMap<String, Value> {
    let entries = dump["tables"][name].as_array().cloned().unwrap_or_default();
    entries.iter().map(|e| (e["key"].as_str().expect("a name").to_owned(), e["value"].clone())).collect()
}

/// Compares the tables with what the clients know.
fn check_tables(dump: &Value, findings: &Findings) {
    let (sums, ends) = (table(dump, "sums"), table(dump, "ends"));
    for (name, Ended { hashes, complete }) in &findings.ended {
        let Some(sum) = sums.get(name) else {
            assert!(!complete, "{name} is in no table");
            continue;
        };
        let (count, hash) = (sum[0].as_u64().expect("count") as usize, sum[1].as_u64().expect("hash"));
        assert!(if *complete { count == hashes.len() } else { count <= hashes.len() }, "{name}: {count}");
        assert_eq!(hash, hashes[count - 1], "{name}");
        assert_eq!(ends.get(name), Some(&Value::from(1)), "{name} was told of its end once");
    }
}

#[test]
fn kills_swaps_and_upgrades_under_load_lose_no_byte() {
    let (seed, kills) = (number("GREENROOM_SEED", fastrand::u64(..1 << 32)), number("GREENROOM_KILLS", 150));
    eprintln!("GREENROOM_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let fixture = chain::fixture("chaos");
    let builds = [fixture.build_as("a.so"), {
        fixture.write(&chain::source("chaos", "the second build"));
        fixture.build_as("b.so")
    }];
    let dir = tempfile::tempdir().expect("a directory");
    let kill_plan = dir.path().join("plan");
    std::fs::write(&kill_plan, plan(&mut rng, 3 * kills)).expect("a plan");
    let (pipe, writer) = std::io::pipe().expect("a pipe");
    let host = Host::serve_with(&["chaos"], &[&builds[0]], |c| {
        c.env("GREENROOM_KILL_PLAN", &kill_plan).stderr(writer);
    });
    let log = LogReader::start(pipe, &host.dir().join("log"));
    let load = Load::start(host.addr("chaos"), 40, seed, Duration::from_secs(30));
    let binary = greenroom_tests::built("greenroom");
    let (mut swaps, mut upgrades, mut refused) = (0, 0, 0);

    while host_status(&host).1 < kills && !load.has_failed() {
        befall(&host, &log, &mut rng);
        kill_worker(&host, &mut rng);
        match rng.u8(0..20) {
            0..2 => {
                let to: &Path = &builds[rng.usize(0..2)];
                let out = host.cli(&["reload", "chaos", "--from", to.to_str().expect("UTF-8")]);
                // One that a kill cuts off says so.
                if out.status.success() { swaps += 1 } else { refused += 1 }
            }
            2..5 => {
                let out = host.cli(&["upgrade", "--binary", binary.to_str().expect("UTF-8")]);
                if out.status.success() { upgrades += 1 } else { refused += 1 }
            }
            _ => {}
        }
    }

    // From here on nobody is killed, so that the last conversations end, and at least an upgrade
    // and a swap under load succeed.
    std::fs::write(&kill_plan, "").expect("no plan");
    log.block(false);
    let succeeds = |args: &[&str]| host.cli(args).status.success().then_some(());
    wait_for("an upgrade", || succeeds(&["upgrade", "--binary", binary.to_str()?]));
    wait_for("a swap", || succeeds(&["reload", "chaos", "--from", builds[0].to_str()?]));
    wait_for("a swap", || succeeds(&["reload", "chaos", "--from", builds[1].to_str()?]));
    (swaps, upgrades) = (swaps + 2, upgrades + 1);

    let findings = match load.finish() {
        Ok(findings) => findings,
        Err(e) => panic!("{e}\n{}", host.log()),
    };
    let log = host.log();
    assert!(!log.contains("given up"), "{log}");
    let out = host.cli(&["state", "dump"]);
    let dump: Value = serde_json::from_slice(&out.stdout).expect("a dump");
    assert_eq!(dump["sessions"].as_array().map(Vec::len), Some(0), "{}", dump["sessions"]);
    check_tables(&dump, &findings);

    eprintln!(
        "{} kills, {swaps} swaps, {upgrades} upgrades, {refused} of them cut off: {} sessions, {} replies checked, the \
         longest wait {:.0} ms",
        host_status(&host).1,
        findings.ended.len(),
        findings.replies,
        findings.longest.as_secs_f64() * 1000.0
    );
    assert!(findings.replies > kills * 100 && findings.ended.len() as u64 > kills / 2);
}

/// Kills without what the kernel knows: the checks above can fail.
#[test]
fn clients_notice_kills_without_the_kernels_counts() {
    let fixture = chain::fixture("unreconciled");
    let library = fixture.build();
    let dir = tempfile::tempdir().expect("a directory");
    let kill_plan = dir.path().join("plan");
    // For as long as it takes: a death in a quiet moment loses nothing. Each point is reached soon,
    // or a kill from outside comes first.
    let lines: String = POINTS.iter().take(8).map(|p| format!("{p} 5\nunreconciled\n")).collect();
    std::fs::write(&kill_plan, lines.repeat(1_000)).expect("a plan");
    let host = Host::serve_with(&["unreconciled"], &[&library], |c| {
        c.env("GREENROOM_KILL_PLAN", &kill_plan);
    });
    let load = Load::start(host.addr("unreconciled"), 20, 1, Duration::from_secs(3));
    let mut rng = fastrand::Rng::with_seed(1);
    let give_up = Instant::now() + Duration::from_secs(120);

    while !load.has_failed() && Instant::now() < give_up {
        kill_worker(&host, &mut rng);
    }

    match load.finish() {
        Err(said) => eprintln!("as it should be: {said}"),
        Ok(findings) => panic!("no client noticed anything in {} replies", findings.replies),
    }
}
