//! Figures that operators collect: what they count, over a crash and a reload, and their text as
//! Prometheus reads it.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::install;
use greenroom_tests::host::Host;
use greenroom_tests::{built, root, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Samples of a text, by name and labels. Panics if a sample comes twice, stands outside of its
/// family, or has no number.
#[track_caller]
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut found, mut families, mut family) = (BTreeMap::new(), BTreeSet::new(), String::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            if let Some(name) = comment.strip_prefix("TYPE ").and_then(|c| c.split(' ').next()) {
                assert!(families.insert(name.to_owned()), "{name} begins twice");
                family = name.to_owned();
            }
            continue;
        }
        assert!(line.starts_with(&family), "{line} stands in {family}");
        let (sample, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let number = number.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(found.insert(sample.to_owned(), number).is_none(), "{sample} comes twice");
    }
    found
}

/// Text of `greenroom metrics`.
#[track_caller]
fn text(host: &Host, args: &[&str]) -> String {
    let out = host.cli(&[&["metrics"], args].concat());
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// Runs promtool. `scripts/test` puts it beside the build, unless it is installed.
fn promtool(args: &[&str], input: &str) -> Output {
    let own = root().join("target/prometheus/usr/bin/promtool");
    let program = if own.exists() { own } else { PathBuf::from("promtool") };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool (scripts/test gets it)");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("promtool reads");
    child.wait_with_output().expect("promtool")
}

#[test]
fn figures_count_on_over_a_crash_and_tell_generations_apart() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("libecho.so");
    install(&built("libecho.so"), &live);
    let host = Host::serve(&["tally"], &[&live]);
    let mut client = Client::connect(host.addr("tally"));
    (1..=10).for_each(|n| assert_eq!(client.ask("x"), format!("{n} x")));

    // The kernel has taken an answer before the loop has booked it, so the last one may miss.
    let first = wait_for("the bytes of ten answers", || {
        let first = samples(&text(&host, &[]));
        (first["greenroom_sent_bytes_total{service=\"tally\"}"] == 41.0).then_some(first)
    });
    let expected = [
        ("greenroom_sessions{service=\"tally\"}", 1.0),
        ("greenroom_sessions_opened_total{service=\"tally\"}", 1.0),
        ("greenroom_received_bytes_total{service=\"tally\"}", 20.0),
        ("greenroom_turns_total{service=\"tally\"}", 11.0),
        ("greenroom_actions_total{service=\"tally\",generation=\"1\",action=\"message\"}", 10.0),
        ("greenroom_accepts_total", 1.0),
        ("greenroom_connections", 1.0),
        ("greenroom_worker_serving", 1.0),
        ("greenroom_generation{service=\"tally\"}", 1.0),
        ("greenroom_takeovers_total{cause=\"kill\"}", 0.0),
    ];
    for (name, number) in expected {
        assert_eq!(first.get(name), Some(&number), "{name}");
    }
    let kinds = first.iter().filter(|(name, _)| name.starts_with("greenroom_store_kind_bytes"));
    assert_eq!(kinds.map(|(_, bytes)| bytes).sum::<f64>(), first["greenroom_store_bytes"]);

    host.kill_worker();
    assert_eq!(client.ask("x"), "11 x");
    std::fs::write(dir.path().join("garbage.so"), "no library").unwrap();
    let garbage = dir.path().join("garbage.so");
    assert_eq!(host.cli(&["reload", "tally", "--from", garbage.to_str().unwrap()]).status.code(), Some(1));
    let mut bytes = std::fs::read(&live).unwrap();
    bytes.extend_from_slice(b"another build");
    let next = dir.path().join("next");
    std::fs::write(&next, bytes).unwrap();
    install(&next, &live);
    host.wait_generation("tally", 2);
    assert_eq!(client.ask("x"), "12 x");

    let later = wait_for("the bytes of twelve answers", || {
        let later = samples(&text(&host, &[]));
        (later["greenroom_sent_bytes_total{service=\"tally\"}"] == 51.0).then_some(later)
    });
    for (name, before) in &first {
        let counts = ["_total", "_bucket", "_count", "_sum"]
            .iter()
            .any(|end| name.split('{').next().is_some_and(|name| name.ends_with(end)));
        assert!(!counts || later[name] >= *before, "{name} was {before}, and is {}", later[name]);
    }
    let expected = [
        ("greenroom_received_bytes_total{service=\"tally\"}", 24.0),
        ("greenroom_turns_total{service=\"tally\"}", 13.0),
        ("greenroom_actions_total{service=\"tally\",generation=\"1\",action=\"message\"}", 11.0),
        ("greenroom_actions_total{service=\"tally\",generation=\"2\",action=\"message\"}", 1.0),
        // Its first turn tells it that it has started.
        ("greenroom_turn_duration_seconds_count{service=\"tally\",generation=\"2\"}", 2.0),
        ("greenroom_takeovers_total{cause=\"kill\"}", 1.0),
        ("greenroom_takeover_duration_seconds_count", 1.0),
        ("greenroom_reloads_total{outcome=\"refused\"}", 1.0),
        ("greenroom_generation{service=\"tally\"}", 2.0),
        ("greenroom_builds_kept{library=\"echo\"}", 2.0),
    ];
    for (name, number) in expected {
        assert_eq!(later.get(name), Some(&number), "{name}");
    }
    let json = host.json(&["metrics", "--json"]);
    assert_eq!(json["status"]["services"].as_array().map(Vec::len), Some(2));

    checks_of_prometheus(&host);
}

/// Holds the text against Prometheus's own rules for it.
fn checks_of_prometheus(host: &Host) {
    let (open, prometheus) = (text(host, &[]), text(host, &["--prometheus"]));
    assert!(open.ends_with("# EOF\n") && !prometheus.contains("# EOF"));
    let names = |text: &str| samples(text).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&open), names(&prometheus));
    let out = promtool(&["check", "metrics"], &prometheus);
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let rules = root().join("host/dashboards/alerts.yml");
    let out = promtool(&["check", "rules", rules.to_str().unwrap()], "");
    assert!(out.status.success(), "{out:?}");
}
