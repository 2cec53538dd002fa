//! Many reloads are as good as one: fresh workers take over before what old generations hold runs
//! out.
//!
//! `GREENROOM_RELOADS=10000` makes it the long run that `scripts/soak` does.

use greenroom::admin::client::call;
use greenroom::protocol::admin::{AdminCommand, Reply};
use greenroom_core::ledger::Outcome;
use greenroom_tests::client::Client;
use greenroom_tests::fixture::{Fixture, Optimize, tally_source};
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Touches everything that keeps a Rust library from being unloaded.
fn source(prefix: &str) -> String {
    let lingering = r#"
        {
            thread_local!(static SEEN: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) });
            SEEN.with_borrow_mut(|seen| seen.push(format!("{:?}", std::thread::current().id())));
            println!("a line that nobody reads");
            let caught = std::panic::catch_unwind(|| panic!("caught"));
            assert!(caught.is_err());
        }
        if let Action::Message"#;
    tally_source("many", prefix).replacen("        if let Action::Message", lingering, 1)
}

/// Two builds of service `many`, made once for all tests.
fn builds() -> &'static [PathBuf; 2] {
    static BUILDS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    BUILDS.get_or_init(|| {
        let fixture = Fixture::with(Optimize::AsReleased, "many", &source("one"));
        let one = fixture.build_as("one.so");
        fixture.write(&source("two"));
        [one, fixture.build_as("two.so")]
    })
}

/// Of the worker that serves now: mappings, and bytes of memory that are its own.
fn footprint(host: &Host) -> (usize, usize) {
    let status = host.json(&["status", "--json"]);
    let pid = status["host"]["worker_pid"].as_u64().expect("a pid");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default().lines().count();
    let all = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let anon = all.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap_or("0 kB");
    let kib: usize = anon.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    (maps, kib * 1024)
}

#[test]
fn thousands_of_reloads_hold_no_more_than_a_few() {
    let reloads: u64 = std::env::var("GREENROOM_RELOADS").map_or(600, |n| n.parse().expect("a number"));
    let [one, two] = builds();
    let host = Host::serve_with(&["many"], &[one], |c| {
        let config = tempfile::NamedTempFile::new().expect("a file").into_temp_path().keep().expect("a file");
        std::fs::write(&config, "[limits]\nbuilds_max = 100\n").expect("a configuration");
        c.arg("--config").arg(config);
    });
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(host.addr("many"))).collect();
    let (mut most, mut pause_max) = ((0, 0), 0.0f64);
    let begun = std::time::Instant::now();
    for n in 1..=reloads {
        let (path, prefix) = if n % 2 == 0 { (one, "one") } else { (two, "two") };
        let command = AdminCommand::Reload {
            service: Some("many".into()),
            from: Some(path.clone()),
            together: false,
            dry_run: false,
            against: None,
        };
        let mut report = None;
        // As the command does, without a process for each.
        call(&host.runtime(), &command, |reply| {
            if let Reply::Report(r) = reply {
                report = Some(r);
            }
        })
        .unwrap_or_else(|e| panic!("reload {n}: {e:?}\n{}", host.log()));
        let report = report.expect("a report");
        assert_eq!((report.outcome, report.generation), (Outcome::Committed, n + 1), "{}", report.reason);
        pause_max = pause_max.max(report.pause_us);
        let at = n as usize % clients.len();
        let count = (n as usize - 1) / clients.len() + 1;
        assert_eq!(clients[at].ask("on"), format!("{prefix} {count} on"), "reload {n}");
        if n % 20 == 0 {
            let now = footprint(&host);
            most = (most.0.max(now.0), most.1.max(now.1));
        }
    }
    let status = host.json(&["status", "--json"]);
    let workers = status["host"]["workers_before"].as_u64().expect("a number");
    eprintln!(
        "{reloads} reloads in {:.0} s by {} workers: at most {} mappings and {} KiB of a worker's own; pause at most {pause_max:.0} µs",
        begun.elapsed().as_secs_f64(),
        workers + 1,
        most.0,
        most.1 / 1024,
    );
    assert!(workers >= reloads / 101 && workers <= reloads / 99 + 1, "{workers} workers");
    // A hundred builds of a few mappings and some hundred KiB each, whatever number came before.
    assert!(most.0 < 1500 && most.1 < 128 << 20);
    // The build that runs, the one that proved itself, and five that ran before (limit
    // builds_kept). Others are removed soon after a commit, or by the successor of a worker that
    // ended before it could.
    wait_for("the removal of private copies", || (host.copies().len() <= 7).then_some(()));
    assert_eq!(status["services"][0]["sessions"], clients.len());
}

/// A worker that dies in a reload can no longer remove the private copy that it wrote, nor the one
/// that it replaced.
#[test]
fn a_successor_removes_the_private_copies_of_a_worker_that_died() {
    let [one, two] = builds();
    let points = ["tried", "ports-open", "loaded", "adopted", "reload-committed", "reported"];
    let dir = tempfile::tempdir().expect("a directory");
    let (plan, config) = (dir.path().join("plan"), dir.path().join("config"));
    // The first load of all passes a point once; the successors load nothing when they begin.
    let lines = points.iter().enumerate().map(|(n, point)| format!("{point} {}\n", u32::from(n == 0)));
    std::fs::write(&plan, lines.collect::<String>()).expect("a plan");
    std::fs::write(&config, "[limits]\nbuilds_kept = 1\nprobation_ms = 0\n").expect("a configuration");
    let host = Host::serve_with(&["many"], &[one], |c| {
        c.arg("--config").arg(&config).env("GREENROOM_KILL_PLAN", &plan);
    });
    let mut client = Client::connect(host.addr("many"));
    let worker = || host.json(&["status", "--json"])["host"].take();
    for (died, point) in (1..).zip(points) {
        let runs_two = client.ask("on").starts_with("two");
        let other = if runs_two { one } else { two };
        // What the command says depends on the point; another test checks it.
        host.cli(&["reload", "many", "--from", other.to_str().expect("UTF-8")]);
        wait_for(&format!("the successor of a worker that died at {point}"), || {
            let now = worker();
            (now["workers_before"] == died && now["worker"] == "serving").then_some(())
        });
        let kept = 1 + usize::from(host.generation("many") > 1);
        wait_for(&format!("{kept} private copies after {point}"), || {
            (host.copies().len() == kept).then_some(())
        });
    }
    // The copies that are left are the right ones.
    let before = client.ask("on")[..3].to_owned();
    let out = host.cli(&["rollback", "many"]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert_ne!(client.ask("on")[..3], before);
}
