//! Libraries whose builds would share code or data in one process, and builds that fill a process
//! or a disk.

use greenroom_tests::built;
use greenroom_tests::client::Client;
use greenroom_tests::fixture::compile_c;
use greenroom_tests::host::Host;
use greenroom_tests::mishaps::limit;
use greenroom_tests::{in_namespace, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A build of the C handler, whose answers end with this.
fn build(dir: &Path, end: &str, flags: &[&str]) -> PathBuf {
    let (path, end) = (dir.join(format!("libupper-{end}.so")), format!("-DEND=\"{end}\""));
    compile_c("upper.c", &[&[end.as_str()], flags].concat(), &path);
    path
}

/// Number of workers before the one that serves.
fn workers_before(host: &Host) -> u64 {
    host.json(&["status", "--json"])["host"]["workers_before"].as_u64().expect("a number")
}

/// Refused alike by `check`, a start, and a reload, before any of its code runs.
#[test]
fn what_two_builds_would_share_is_refused() {
    let base = tempfile::tempdir().expect("a directory");
    let dir = base.path();
    let helper = dir.join("libhelper.so");
    compile_c("upper.c", &["-Wl,-soname,libhelper.so"], &helper);
    let beside = format!("-L{}", dir.display());
    // The loader looks there for a run path of the folder above.
    let processor = dir.join("v1/glibc-hwcaps/x86-64-v2");
    std::fs::create_dir_all(&processor).expect("a directory");
    std::fs::copy(&helper, processor.join("libhelper.so")).expect("a copy");
    let needs = |more| ["-Wl,--no-as-needed", beside.as_str(), "-lhelper", more];
    let good = build(dir, "0", &[]);
    let mut client = None;
    let host = Host::serve(&["upper"], &[&good]);
    for (name, flags, why) in [
        ("unique", &["-DUNIQUE"][..], "unique symbol one_for_all: a later build would use"),
        ("origin", &needs("-Wl,-rpath,$ORIGIN"), "or install it in /usr/local/lib and start the host anew"),
        ("old", &needs("-Wl,--disable-new-dtags,-rpath,$ORIGIN/."), "outside the system's folders"),
        ("auxiliary", &["-Wl,-rpath,$ORIGIN", "-Wl,-f,libhelper.so"], "it needs libhelper.so, which is"),
        ("nowhere", &needs("-Wl,-rpath,/nonexistent"), "libhelper.so: cannot open shared object file"),
        ("processor", &needs("-Wl,-rpath,$ORIGIN/v1"), "v1/glibc-hwcaps/x86-64-v2/libhelper.so and"),
        ("beside", &needs("-Wl,-rpath,$ORIGIN/nothing"), "so $ORIGIN is not its own folder"),
    ] {
        let bad = build(dir, name, flags);
        let (code, report) = host.reload_from("upper", &bad);
        let reason = report["reason"].as_str().unwrap_or_default();
        assert!(code == Some(1) && reason.contains(why), "{name}: {report}");
        for args in [&["check"][..], &["--runtime", "/nonexistent/run", "serve", "--check-config"]] {
            let out = Command::new(built("greenroom")).args(args).arg(&bad).output().expect("greenroom");
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.code() == Some(1) && said.contains(why), "{name}: {args:?}: {said}");
        }
        let client = client.get_or_insert_with(|| Client::connect(host.addr("upper")));
        assert!(client.ask("on").ends_with(" ON0"));
    }
}

/// A library of the system's needs one that lies elsewhere. In a namespace of its own, as the
/// folders of the system are nobody's to try things in.
#[test]
fn what_a_library_of_the_system_needs_elsewhere_is_refused() {
    let base = tempfile::tempdir().expect("a directory");
    let dir = base.path();
    compile_c("upper.c", &["-Wl,-soname,libhelper.so"], &dir.join("libhelper.so"));
    let (beside, rpath) = (format!("-L{}", dir.display()), format!("-Wl,-rpath,{}", dir.display()));
    let needs = ["-Wl,--no-as-needed", &beside, "-lhelper", &rpath, "-Wl,-soname,libmiddle.so"];
    compile_c("upper.c", &needs, &dir.join("libmiddle.so"));
    let upper = build(dir, "needs", &["-Wl,--no-as-needed", &beside, "-lmiddle"]);
    let mut command = in_namespace();
    command.arg("mount -t tmpfs none /usr/local/lib; cp \"$1\" /usr/local/lib; shift; exec \"$@\"");
    command.arg("sh").arg(dir.join("libmiddle.so")).arg(built("greenroom")).arg("check").arg(&upper);
    let out = command.output().expect("unshare");
    let said = String::from_utf8_lossy(&out.stderr);
    let why = format!(
        "it needs libmiddle.so, which needs libhelper.so, which is {} and outside the system's folders",
        dir.canonicalize().expect("a directory").join("libhelper.so").display()
    );
    assert!(out.status.code() == Some(1) && said.contains(&why), "{said}");
}

/// Each build takes a part of what a process has for all, and none gives it back.
#[test]
fn a_fresh_worker_goes_on_before_thread_local_storage_ends() {
    let base = tempfile::tempdir().expect("a directory");
    let builds = ["a", "b"].map(|end| build(base.path(), end, &["-DTLS_BYTES=300"]));
    let host = Host::serve_limited("upper", &builds[1], "probation_ms = 0");
    let mut client = Client::connect(host.addr("upper"));
    for n in 0..12 {
        let (code, report) = host.reload_from("upper", &builds[n % 2]);
        assert_eq!((code, report["outcome"].as_str()), (Some(0), Some("committed")), "{report}");
        assert_eq!(client.ask("x"), format!("{} X{}", n + 1, ["a", "b"][n % 2]));
    }
    assert!(workers_before(&host) >= 2, "{}", host.log());
    host.wait_log("bytes of initial-exec thread-local storage");
}

/// A large build behind a small one finds no room, and is tried again where there is some.
#[test]
fn a_build_that_finds_no_room_is_loaded_by_a_fresh_worker() {
    let base = tempfile::tempdir().expect("a directory");
    let large = ["a", "b"].map(|end| build(base.path(), end, &["-DTLS_BYTES=900"]));
    let small = build(base.path(), "s", &["-DTLS_BYTES=100"]);
    let host = Host::serve_limited("upper", &large[0], "probation_ms = 0");
    let mut client = Client::connect(host.addr("upper"));
    assert_eq!(host.reload_from("upper", &small).0, Some(0));
    assert_eq!(client.ask("x"), "1 Xs");
    let (code, report) = host.reload_from("upper", &large[1]);
    assert_eq!((code, report["outcome"].as_str()), (Some(0), Some("committed")), "{report}");
    assert_eq!(client.ask("x"), "2 Xb");
    assert!(workers_before(&host) >= 1);
    host.wait_log("static TLS block; a fresh worker takes over");
}

/// Deleted copies that a worker has mapped keep their space.
#[test]
fn a_fresh_worker_goes_on_before_deleted_copies_fill_a_disk() {
    let base = tempfile::tempdir().expect("a directory");
    let builds = ["a", "b"].map(|end| build(base.path(), end, &[]));
    let limits = "probation_ms = 0\nbuilds_kept = 0\nretired_bytes_max = 1";
    let host = Host::serve_limited("upper", &builds[1], limits);
    let mut client = Client::connect(host.addr("upper"));
    for n in 0..2 {
        assert_eq!(host.reload_from("upper", &builds[n]).0, Some(0));
        wait_for("a fresh worker", || (workers_before(&host) > n as u64).then_some(()));
        assert_eq!(client.ask("x"), format!("{} X{}", n + 1, ["a", "b"][n]));
    }
    host.wait_log("builds that it has left behind take");
}

/// A file system that holds four copies, one of which is that of the build that runs.
#[test]
fn a_small_disk_for_copies_takes_reload_after_reload() {
    let base = tempfile::tempdir().expect("a directory");
    let builds = ["a", "b"].map(|end| build(base.path(), end, &[]));
    let largest = builds.iter().map(|b| std::fs::metadata(b).expect("a build").len()).max().expect("builds");
    let dir = tempfile::tempdir().expect("a directory");
    let (copies, config) = (dir.path().join("copies"), dir.path().join("greenroom.toml"));
    std::fs::create_dir(&copies).expect("a directory");
    std::fs::write(&config, "[limits]\nprobation_ms = 0\nbuilds_kept = 0\n").expect("a file");
    let mut command = in_namespace();
    // A page more for each copy and for the lock.
    command.arg(format!(
        "mount -t tmpfs -o mode=0700,size={} none \"$1\"; shift; exec \"$@\"",
        4 * (largest + 4096) + 3 * 4096
    ));
    command.arg("sh").arg(&copies).arg(greenroom_tests::built("greenroom")).arg("serve").arg(&builds[1]);
    command.args(["--listen", "upper=127.0.0.1:0", "--copies"]).arg(&copies).arg("--config").arg(&config);
    command.env("GREENROOM_RUNTIME", dir.path().join("run"));
    let host = Host::start(dir, command);
    let mut client = Client::connect(host.addr("upper"));
    for n in 0..8 {
        let (code, report) = host.reload_from("upper", &builds[n % 2]);
        assert_eq!((code, report["outcome"].as_str()), (Some(0), Some("committed")), "{report}");
        assert_eq!(client.ask("x"), format!("{} X{}", n + 1, ["a", "b"][n % 2]));
    }
    // The last one may still be on its way.
    wait_for("two fresh workers", || (workers_before(&host) >= 2).then_some(()));
}

/// No connection is lost for lack of a descriptor, and no session of the worker before.
#[test]
fn a_fresh_worker_goes_on_once_a_handler_has_used_up_all_descriptors() {
    let base = tempfile::tempdir().expect("a directory");
    let host = Host::serve(&["upper"], &[&build(base.path(), "l", &["-DLEAK"])]);
    let mut client = Client::connect(host.addr("upper"));
    limit(host.worker_pid(), libc::RLIMIT_NOFILE, 100).expect("a worker");
    assert_eq!(client.ask("x"), "1 Xl");
    let mut others: Vec<_> = (0..3).map(|_| Client::connect(host.addr("upper"))).collect();
    host.wait_log("wait for a fresh process");
    wait_for("a fresh worker", || (workers_before(&host) > 0).then_some(()));
    for (n, client) in others.iter_mut().chain([&mut client]).enumerate() {
        assert_eq!(client.ask("y"), if n < 3 { "1 Yl" } else { "2 Yl" });
    }
}
