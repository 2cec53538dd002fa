//! Files of libraries: the build that runs is the build that is there, wherever a path leads.

use greenroom_tests::client::Client;
use greenroom_tests::fixture::compile_c;
use greenroom_tests::host::Host;
use greenroom_tests::wait_for;
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;

/// A build of the C handler, whose answers end with this.
fn build(end: &str, to: &Path) {
    compile_c("upper.c", &[&format!("-DEND=\"{end}\"")], to);
}

/// Moves a link as deployments do: a new one, renamed into place.
fn point(link: &Path, to: &str) {
    let new = link.with_extension("new");
    symlink(to, &new).expect("a link");
    std::fs::rename(&new, link).expect("a rename");
}

/// Directories `1`, `2` and `3`, each with a build whose answers end with its name.
fn releases(dir: &Path) {
    for name in ["1", "2", "3"] {
        std::fs::create_dir(dir.join(name)).expect("a directory");
        build(name, &dir.join(name).join("libupper.so"));
    }
}

/// Files in the status.
fn files(host: &Host) -> Vec<Value> {
    host.json(&["status", "--json"])["host"]["files"].as_array().expect("files").clone()
}

/// Waits until the status names one file, and one whose reason or lack of one is this.
#[track_caller]
fn wait_file(host: &Host, reason: Option<&str>) -> Value {
    wait_for(&format!("a file that differs, {reason:?}: {:?}", files(host)), || {
        let file = files(host).pop()?;
        let said = file["reason"].as_str();
        reason.map_or(said.is_none(), |r| said.is_some_and(|s| s.contains(r))).then_some(file)
    })
}

#[test]
fn a_release_is_seen_when_its_link_moves_or_its_directory_is_renamed() {
    let base = tempfile::tempdir().expect("a directory");
    let dir = base.path();
    releases(dir);
    let current = dir.join("current");
    symlink("1", &current).expect("a link");
    let host = Host::serve(&["upper"], &[&dir.join("current/")]);
    let mut client = Client::connect(host.addr("upper"));
    assert_eq!(client.ask("a"), "1 A1");

    point(&current, "2");
    host.wait_generation("upper", 2);
    assert_eq!(client.ask("b"), "2 B2");

    // A directory in the place of the link, and another one in the place of that.
    std::fs::remove_file(&current).expect("removed");
    std::fs::rename(dir.join("3"), &current).expect("a rename");
    host.wait_generation("upper", 3);
    assert_eq!(client.ask("c"), "3 C3");
    std::fs::rename(&current, dir.join("old")).expect("a rename");
    std::fs::rename(dir.join("1"), &current).expect("a rename");
    host.wait_generation("upper", 4);
    assert_eq!(client.ask("d"), "4 D1");

    // A link further up, which a successor follows, too.
    host.kill_worker();
    std::fs::rename(&current, dir.join("1")).expect("a rename");
    symlink("2", &current).expect("a link");
    host.wait_generation("upper", 5);
    assert_eq!(client.ask("e"), "5 E2");
    wait_for("no file that differs", || files(&host).is_empty().then_some(()));
}

#[test]
fn a_reload_looks_its_path_up_anew_and_status_names_a_file_that_does_not_run() {
    let base = tempfile::tempdir().expect("a directory");
    let dir = base.path();
    releases(dir);
    let current = dir.join("current");
    symlink("1", &current).expect("a link");
    let host = Host::serve_with(&["upper"], &[&current.join("libupper.so")], |c| {
        c.arg("--no-watch");
    });
    let mut client = Client::connect(host.addr("upper"));
    assert_eq!(client.ask("a"), "1 A1");

    point(&current, "2");
    let file = wait_file(&host, None);
    assert_eq!((&file["path"], &file["library"]), (&json(&current.join("libupper.so")), &"upper".into()));
    assert_ne!(file["build"], file["runs"]);
    assert_eq!(file["runs"], host.service("upper")["build"]);
    let text = String::from_utf8(host.cli(&["status"]).stdout).expect("UTF-8");
    assert!(text.contains("not loaded yet; `greenroom reload` loads it"), "{text}");
    let out = host.cli(&["reload", "--json"]);
    let report: Value = serde_json::from_slice(&out.stdout).expect("a report");
    assert_eq!((out.status.code(), &report["outcome"]), (Some(0), &"committed".into()), "{report}");
    assert_eq!(client.ask("b"), "2 B2");

    // Refused: the reason stays until the file is another one, also when the worker dies.
    std::fs::write(dir.join("2/libupper.so"), "no library").expect("a file");
    assert!(!host.cli(&["reload"]).status.success());
    wait_file(&host, Some("it is not an ELF file"));
    host.kill_worker();
    wait_file(&host, Some("it is not an ELF file"));
    std::fs::remove_file(dir.join("2/libupper.so")).expect("removed");
    assert_eq!(wait_file(&host, Some("No such file"))["build"], Value::Null);
    point(&current, "3");
    assert!(host.cli(&["reload"]).status.success());
    assert_eq!(client.ask("c"), "3 C3");
    wait_for("no file that differs", || files(&host).is_empty().then_some(()));
}

/// A file whose build runs as a canary is loaded, and the status says so.
#[test]
fn the_status_tells_a_file_that_runs_as_a_canary() {
    let base = tempfile::tempdir().expect("a directory");
    let dir = base.path();
    releases(dir);
    let current = dir.join("current");
    symlink("1", &current).expect("a link");
    let host = Host::serve_with(&["upper"], &[&current.join("libupper.so")], |c| {
        c.arg("--no-watch");
    });
    point(&current, "2");
    assert_eq!(wait_file(&host, None)["is_canary"], Value::Null);

    let out = host.cli(&["reload", "upper", "--canary", "50%"]);
    assert!(out.status.success(), "{out:?}");

    assert_eq!(wait_file(&host, None)["is_canary"], true);
    let said = || String::from_utf8(host.cli(&["status"]).stdout).expect("UTF-8");
    let text = said();
    assert!(text.contains("; it runs as a canary; `greenroom canary` has more"), "{text}");
    assert!(!text.contains("not loaded yet"), "{text}");
    // A later file is none of the canary's.
    point(&current, "3");
    wait_for("a file that no canary runs", || {
        wait_file(&host, None).get("is_canary").is_none().then_some(())
    });
    assert!(said().contains("not loaded yet"));
    point(&current, "2");
    wait_for("the canary's file", || (wait_file(&host, None)["is_canary"] == true).then_some(()));
    assert!(host.cli(&["canary", "cancel", "upper"]).status.success());
    assert_eq!(wait_file(&host, None)["is_canary"], Value::Null);
}

/// A path in JSON.
fn json(path: &Path) -> Value {
    path.to_str().expect("UTF-8").into()
}

/// A file that is written by its other name, where no directory is watched. And without notices of
/// the system, a look finds all of it.
#[test]
fn a_slow_look_finds_what_the_system_does_not_tell() {
    let base = tempfile::tempdir().expect("a directory");
    let (dir, elsewhere) = (base.path().join("here"), base.path().join("elsewhere"));
    std::fs::create_dir(&elsewhere).expect("a directory");
    std::fs::create_dir(&dir).expect("a directory");
    releases(&elsewhere);
    let (library, other) = (dir.join("libupper.so"), elsewhere.join("libupper.so"));
    std::fs::copy(elsewhere.join("1/libupper.so"), &other).expect("a copy");
    std::fs::hard_link(&other, &library).expect("a hard link");
    let link = dir.join("link.so");
    symlink("../elsewhere/1/libupper.so", &link).expect("a link");

    let told = Host::serve(&["upper"], &[&library]);
    let untold = Host::serve_with(&["upper"], &[&link], |c| {
        // SAFETY: between fork and exec, and only system calls.
        unsafe { c.pre_exec(no_inotify) };
    });
    let status = |host: &Host| host.json(&["status", "--json"])["host"]["slow_look"].clone();
    assert_eq!(status(&told), Value::Null);
    wait_for("a word in the status", || {
        status(&untold).as_str().is_some_and(|why| why.contains("Too many open files")).then_some(())
    });
    let text = String::from_utf8(untold.cli(&["status"]).stdout).expect("UTF-8");
    assert!(text.contains("changed files are noticed late"), "{text}");

    std::fs::copy(elsewhere.join("2/libupper.so"), &other).expect("written by its other name");
    point(&link, "../elsewhere/3/libupper.so");
    for (host, end) in [(&told, "2"), (&untold, "3")] {
        host.wait_generation("upper", 2);
        assert_eq!(Client::connect(host.addr("upper")).ask("x"), format!("1 X{end}"));
    }
    assert_eq!(untold.log().matches("gives no notice of changed files").count(), 1, "said once");
}

/// Has the kernel refuse inotify instances to this process and its children, as if there were none
/// left.
fn no_inotify() -> std::io::Result<()> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        // The number of the system call is the first word.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_inotify_init1 as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EMFILE as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the option takes numbers alone.
    let free = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program lives longer than the call, which copies it.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    match free == 0 && set == 0 {
        true => Ok(()),
        false => Err(std::io::Error::last_os_error()),
    }
}
