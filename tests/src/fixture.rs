//! Handler crates that a test writes, builds with a real cargo, and rewrites.

use crate::root;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A crate with one library. Its name must be the test's own: all fixtures share a target directory, so that what they
/// depend on is built once.
pub struct Fixture {
    name: String,
    dir: tempfile::TempDir,
}

impl Fixture {
    /// Writes a crate.
    pub fn new(name: &str, source: &str) -> Fixture {
        let fixture =
            Fixture { name: name.to_owned(), dir: tempfile::tempdir().expect("a directory for a crate") };
        let root = root().display();
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\
             [dependencies]\ngreenroom-handler = {{ path = \"{root}/handlers/sdk\" }}\nschemars = \"1.2\"\n\
             serde = {{ version = \"1\", features = [\"derive\"] }}\ntracing = \"0.1\"\n[profile.release]\ndebug = \"line-tables-only\"\n[workspace]\n"
        );
        std::fs::create_dir(fixture.dir.path().join("src")).expect("src");
        std::fs::write(fixture.dir.path().join("Cargo.toml"), manifest).expect("a manifest");
        // The same versions as the repository's own.
        std::fs::copy(format!("{root}/Cargo.lock"), fixture.dir.path().join("Cargo.lock"))
            .expect("a lock file");
        fixture.write(source);
        fixture
    }

    /// Rewrites its source.
    pub fn write(&self, source: &str) {
        std::fs::write(self.dir.path().join("src/lib.rs"), source).expect("its source");
    }

    /// Runs cargo, and returns the library's path.
    #[track_caller]
    pub fn build(&self) -> PathBuf {
        self.build_with(&[])
    }

    /// As [`Fixture::build`], with more arguments.
    #[track_caller]
    pub fn build_with(&self, more: &[&str]) -> PathBuf {
        let out = Command::new(env!("CARGO"))
            .args(["build", "--release", "--quiet", "--target-dir"])
            .arg(root().join("target/fixtures"))
            .args(more)
            .current_dir(self.dir.path())
            .output()
            .expect("cargo");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        self.library()
    }

    /// Builds, and keeps a copy under another name: a build to be installed later.
    #[track_caller]
    pub fn build_as(&self, copy: &str) -> PathBuf {
        let to = self.dir.path().join(copy);
        std::fs::copy(self.build(), &to).expect("a copy");
        to
    }

    /// Where cargo puts the library.
    pub fn library(&self) -> PathBuf {
        root().join(format!("target/fixtures/release/lib{}.so", self.name))
    }
}

/// Puts a file in another's place, as `install` does: a new file, renamed.
#[track_caller]
pub fn install(from: &Path, to: &Path) {
    let temporary = to.with_extension("new");
    std::fs::copy(from, &temporary).expect("a copy");
    std::fs::rename(&temporary, to).expect("a rename");
}

/// Compiles a C file of `tests/fixtures` to a shared library.
#[track_caller]
pub fn compile_c(source: &str, flags: &[&str], to: &Path) {
    let out = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(root().join("state-schema/include"))
        .args(flags)
        .arg("-o")
        .arg(to)
        .arg(root().join("tests/fixtures").join(source))
        .output()
        .expect("cc");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A service that counts lines, in as many variants as the tests need. `PREFIX` begins each answer.
pub fn tally_source(service: &str, prefix: &str) -> String {
    r#"
#![forbid(unsafe_code)]
use greenroom_handler::{Action, Fault, Handler, NoConfig, Turn, export};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

export!(Tally);

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Count {
    count: u64,
}

struct Tally;

impl Handler for Tally {
    const SERVICE: &'static str = "SERVICE";
    const PORT: u16 = 0;
    type State = Count;
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Tally)
    }

    fn handle(&self, turn: &mut Turn<'_, Count>, action: Action<'_>) -> Result<(), Fault> {
        if let Action::Message(line) = action {
            turn.state.count += 1;
            let line = String::from_utf8_lossy(line);
            if let Some(size) = line.strip_prefix("flood ") {
                turn.send("x".repeat(size.parse()?));
            }
            let count = &turn.state.count;
            turn.send_line(format!("PREFIX {count} {line}"));
            if &*line == "panic" {
                tracing::warn!(count = turn.state.count, "about to panic");
                panic!("asked to");
            }
        }
        Ok(())
    }
}
"#
    .replace("SERVICE\"", &format!("{service}\""))
    .replace("PREFIX", prefix)
}
