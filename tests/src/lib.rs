//! Helpers of the end-to-end tests: a real host, real clients, handler crates that are written and
//! built on the spot.

pub mod browser;
pub mod chain;
pub mod client;
pub mod fixture;
pub mod host;
pub mod mishaps;
pub mod program;
pub mod tls;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Folder of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// Profile of the programs under test: that of the tests, with which they share their builds and
/// assertions, or the one that `GREENROOM_PROFILE` names.
fn profile() -> String {
    std::env::var("GREENROOM_PROFILE").unwrap_or_else(|_| "dev".into())
}

/// Folder of the programs under test.
pub fn build_dir() -> PathBuf {
    let profile = profile();
    root().join("target").join(if profile == "dev" { "debug" } else { &profile })
}

/// File of the programs under test, made first if it isn't up to date. With `GREENROOM_BUILT` in
/// the environment nothing is built: `scripts/test` has made it for all test files.
pub fn built(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        if std::env::var_os("GREENROOM_BUILT").is_some() {
            return;
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--profile", &profile()]).current_dir(root());
        assert!(cargo.status().is_ok_and(|s| s.success()), "cargo build");
    });
    build_dir().join(name)
}

/// Waits until `done` returns something, at most 60 s: a failure must not be a hang. Asks every
/// 5 ms.
#[track_caller]
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < give_up, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Child of a process by the name of its thread.
pub fn child(of: u32, name: &str) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
    let is_it = |pid: &&str| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
    };
    children.split_whitespace().find(is_it)?.parse().ok()
}

/// Shell that may mount what it likes, and waits for its script. Without root, the namespace is
/// that of a user namespace, in which everybody is root.
pub fn in_namespace() -> Command {
    // SAFETY: the call has no preconditions.
    let is_root = unsafe { libc::geteuid() } == 0;
    let mut command = Command::new("unshare");
    command.args([if is_root { "-m" } else { "-rm" }, "sh", "-ec"]);
    command
}
