//! Handler crates that a test writes, builds with a real cargo, and rewrites.
//!
//! All fixtures share one target directory, so their dependencies are built once. A build of a
//! changed source takes about a second, or several seconds if it is optimized as released.

use crate::root;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Crate with one library, in `target/fixtures/crates`. Its name must be the test's own, among
/// all test files: crates of one name would overwrite each other's library.
pub struct Fixture {
    /// Name of the crate, and of its library.
    name: String,
    /// Folder of the crate.
    dir: PathBuf,
}

/// Time that cargo spends on a fixture's own code. Dependencies are always optimized a little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Optimize {
    /// Built as operators build handlers: several seconds a build.
    AsReleased,
    /// Not optimized, and only changes since the last build: about a second, half of one for a
    /// second variant. Without lines of code, which take half as long again.
    Nothing,
    /// Not optimized either, but with lines of code: an operator may ask where a callback is.
    NothingWithLines,
}

impl Fixture {
    /// Writes a crate whose own code is not optimized.
    pub fn new(name: &str, source: &str) -> Fixture {
        Fixture::with(Optimize::Nothing, name, source)
    }

    /// Writes a crate: manifest, lock file and source. Does not build.
    pub fn with(optimize: Optimize, name: &str, source: &str) -> Fixture {
        let dir = root().join("target/fixtures/crates").join(name);
        let fixture = Fixture { name: name.to_owned(), dir };
        let root = root().display();
        let profile = match optimize {
            Optimize::AsReleased => "",
            // Lines are half of the file, which a host hashes, copies and reads at each load.
            Optimize::Nothing => "opt-level = 0\nincremental = true\ndebug = false\n",
            Optimize::NothingWithLines => "opt-level = 0\nincremental = true\n",
        };
        let lines = if optimize == Optimize::Nothing { "" } else { "debug = \"line-tables-only\"\n" };
        // Dependencies that each turn runs through.
        let quick: String = ["greenroom-handler", "rmp", "rmp-serde", "rmpv", "serde_json"]
            .map(|name| format!("[profile.release.package.{name}]\nopt-level = 1\n"))
            .concat();
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\
             [dependencies]\ngreenroom-handler = {{ path = \"{root}/handlers/sdk\" }}\nschemars = \"1.2\"\n\
             serde = {{ version = \"1\", features = [\"derive\"] }}\n\
             tracing = {{ version = \"0.1\", default-features = false }}\n\
             [profile.release]\n{lines}{profile}\
             [profile.release.package.\"*\"]\nopt-level = 0\ndebug = false\n{quick}[workspace]\n"
        );
        std::fs::create_dir_all(fixture.dir.join("src")).expect("src");
        std::fs::write(fixture.dir.join("Cargo.toml"), manifest).expect("a manifest");
        // The same versions as the repository's own, so that nothing is fetched.
        std::fs::copy(format!("{root}/Cargo.lock"), fixture.dir.join("Cargo.lock")).expect("a lock file");
        fixture.write(source);
        fixture
    }

    /// Rewrites its source. Does not build.
    pub fn write(&self, source: &str) {
        std::fs::write(self.dir.join("src/lib.rs"), source).expect("its source");
    }

    /// Runs cargo, and returns the library's path. Panics with cargo's words if the source does
    /// not compile.
    #[track_caller]
    pub fn build(&self) -> PathBuf {
        self.build_with(&[])
    }

    /// Runs cargo with more arguments than [`Fixture::build`].
    #[track_caller]
    pub fn build_with(&self, more: &[&str]) -> PathBuf {
        let out = self.cargo("build", more);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        self.library()
    }

    /// Runs cargo on a source that does not compile, and returns its words.
    #[track_caller]
    pub fn refusal(&self) -> String {
        let out = self.cargo("build", &[]);
        assert!(!out.status.success(), "it compiles");
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    /// Runs a command of cargo.
    fn cargo(&self, command: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO"))
            // The profile says which are.
            .env_remove("CARGO_INCREMENTAL")
            .args([command, "--release", "--quiet", "--target-dir"])
            .arg(root().join("target/fixtures"))
            .args(more)
            .current_dir(&self.dir)
            .output()
            .expect("cargo")
    }

    /// Builds, and keeps a copy under another name: a build to be installed later.
    #[track_caller]
    pub fn build_as(&self, copy: &str) -> PathBuf {
        let to = self.dir.join(copy);
        install(&self.build(), &to);
        to
    }

    /// Place where cargo puts the library. Each build replaces it.
    pub fn library(&self) -> PathBuf {
        root().join(format!("target/fixtures/release/lib{}.so", self.name))
    }
}

/// Puts a file in another's place, as `install` does: a new file, renamed. A host that watches
/// the place never sees half a file.
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

/// Compiles a C++ file of `tests/fixtures` to a shared library, as the book says.
#[track_caller]
pub fn compile_cpp(source: &str, flags: &[&str], to: &Path) {
    let out = Command::new("g++")
        .args(["-std=c++17", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(root().join("state-schema/include"))
        .args(flags)
        .arg("-o")
        .arg(to)
        .arg(root().join("tests/fixtures").join(source))
        .output()
        .expect("g++");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Compiles a Nim file of `tests/fixtures` to a shared library. Its C lies beside the library.
#[track_caller]
pub fn compile_nim(source: &str, flags: &[&str], to: &Path) {
    let include = root().join("state-schema/include");
    let out = Command::new("nim")
        .args(["c", "--app:lib", "--noMain", "--mm:arc", "--threads:on", "-d:useMalloc", "-d:release"])
        .args(["--hints:off", &format!("--passC:-I{}", include.display())])
        .arg(format!("--nimcache:{}", to.with_extension("cache").display()))
        .arg(format!("-o:{}", to.display()))
        .args(flags)
        .arg(root().join("tests/fixtures").join(source))
        .output()
        .expect("nim");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Service that counts lines, in as many variants as the tests need. `prefix` begins each
/// answer.
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

/// Service whose state changes its shape twice, and its table once. `version` is 1 to 3;
/// `prefix` begins each answer.
///
/// A line is counted and remembered in the state, and its sender in the table. `who LINE` asks
/// for its first sender. If `trips`, a line that begins with `trip` panics.
pub fn versions_source(service: &str, prefix: &str, version: u32, trips: bool) -> String {
    let (fields, count, up) = match version {
        1 => ("count: u64", "count", "turn.state.count += 1;"),
        2 => ("lines: u64", "lines", "turn.state.lines += 1;"),
        _ => (
            "lines: String",
            "lines",
            "turn.state.lines = (turn.state.lines.parse::<u64>().unwrap_or(0) + 1).to_string();",
        ),
    };
    let third = r#"
            .from(2, |old: Two| Ok(State { lines: old.lines.to_string(), last: old.last }))
            .back(3, |new: State| Ok(Two { lines: new.lines.parse().map_err(|e| format!("lines: {e}"))?, last: new.last }))"#;
    let migrations = match version {
        1 => "Migrations::none()".to_owned(),
        2 => "Migrations::none().rename(1, \"count\", \"lines\")".to_owned(),
        _ => format!("Migrations::none().rename(1, \"count\", \"lines\"){third}"),
    };
    let (value, of, table) = match version {
        3 => (
            "by: String",
            "turn.session().to_string()",
            "own_at(&FIRST, 2, Migrations::none().from(1, |old: One| Ok(First { by: old.by.to_string() })).back(2, |new: First| Ok(One { by: new.by.parse().map_err(|e| format!(\"by: {e}\"))? })))",
        ),
        _ => ("by: u64", "turn.session()", "own(&FIRST)"),
    };
    r##"
#![forbid(unsafe_code)]
#![allow(dead_code)]
use greenroom_handler::{Action, Fault, Handler, Migrations, NoConfig, Table, Tables, Turn, export};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

export!(Versions);

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct State {
    FIELDS,
    last: String,
}

#[derive(Serialize, Deserialize)]
struct Two {
    lines: u64,
    last: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct First {
    VALUE,
}

#[derive(Serialize, Deserialize)]
struct One {
    by: u64,
}

const FIRST: Table<First> = Table::new("SERVICE-first");

struct Versions;

impl Handler for Versions {
    const SERVICE: &'static str = "SERVICE";
    const PORT: u16 = 0;
    const STATE_VERSION: u32 = VERSION;
    type State = State;
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Versions)
    }

    fn migrations() -> Migrations {
        MIGRATIONS
    }

    fn tables() -> Tables {
        Tables::none().TABLE
    }

    fn handle(&self, turn: &mut Turn<'_, State>, action: Action<'_>) -> Result<(), Fault> {
        let Action::Message(line) = action else { return Ok(()) };
        let line = String::from_utf8_lossy(line).into_owned();
        if let Some(asked) = line.strip_prefix("who ") {
            let by = FIRST.get(turn, asked)?.map_or("nobody".to_owned(), |f| f.by.to_string());
            turn.send_line(by);
            return Ok(());
        }
        UP
        turn.state.last = line.clone();
        if FIRST.get(turn, &line)?.is_none() {
            FIRST.put(turn, &line, &First { by: OF })?;
        }
        let count = turn.state.COUNT.to_string();
        turn.send_line(format!("PREFIX {count} {line}"));
        assert!(!(TRIPS && line.starts_with("trip")), "tripped");
        Ok(())
    }
}
"##
    .replace("SERVICE\"", &format!("{service}\""))
    .replace("SERVICE-first", &format!("{service}-first"))
    .replace("FIELDS", fields)
    .replace("VALUE", value)
    .replace("= VERSION;", &format!("= {version};"))
    .replace("MIGRATIONS", &migrations)
    .replace("TABLE", table)
    .replace("        UP\n", &format!("        {up}\n"))
    .replace("by: OF }", &format!("by: {of} }}"))
    .replace("COUNT", count)
    .replace("PREFIX", prefix)
    .replace("TRIPS", if trips { "true" } else { "false" })
}

/// Builds of `fixtures/effects.rs` under a service's name: the first one, and one whose answers
/// begin with `new`. With the fixture, whose folder they lie in.
pub fn effects_builds(service: &str) -> (Fixture, [PathBuf; 2]) {
    let source = std::fs::read_to_string(root().join("tests/fixtures/effects.rs")).expect("the fixture");
    let fixture = Fixture::new(service, "");
    let build = |prefix: &str| {
        let source = source.replace("SERVICE\"", &format!("{service}\""));
        fixture.write(&source.replace("SERVICE-", &format!("{service}-")).replace("PREFIX", prefix));
        fixture.build_as(&format!("{service}{}.so", prefix.trim()))
    };
    let builds = [build(""), build("new ")];
    (fixture, builds)
}

/// Build of `fixtures/nicks.rs`: service `chat`, whose table `chat-nicks` holds the nicks in use.
/// `name` is that of the crate. Built once by each process.
pub fn nicks_build(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let source = || std::fs::read_to_string(root().join("tests/fixtures/nicks.rs")).expect("the fixture");
    BUILT.get_or_init(|| Fixture::new(name, &source()).build()).clone()
}
