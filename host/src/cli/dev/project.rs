//! Projects: a folder with a Makefile, or cargo's packages in it, and how they are built.
//!
//! Cargo builds into a target folder of its own, `greenroom-dev` below the usual one. So no build
//! by hand and no rust-analyzer waits for this one's lock, or undoes its work with other settings.

use crate::cli::dev::running::CompilerProcess;
use crate::cli::new::sdk;
use crate::plugin::discover;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Folder of builds, below the target folder.
const BUILDS: &str = "greenroom-dev";
/// Settings of the profile, whatever the manifest says. Incremental builds and no optimization over
/// crates make an edit's build short; line tables are enough for the names in a log.
const PROFILE: [&str; 4] = [
    "profile.dev.panic=\"unwind\"",
    "profile.dev.incremental=true",
    "profile.dev.lto=\"off\"",
    "profile.dev.debug=\"line-tables-only\"",
];

/// Handlers that are built and served together.
#[derive(Debug, Clone)]
pub(super) enum Project {
    /// Packages of cargo.
    Cargo(CargoProject),
    /// Folder with a Makefile, which takes `BUILD=` for the folder of its library.
    Make(PathBuf),
}

/// Packages of one workspace.
#[derive(Debug, Clone)]
pub(super) struct CargoProject {
    /// Manifest that was named.
    manifest: PathBuf,
    /// Root of the workspace.
    root: PathBuf,
    /// Target folder of the builds here.
    target: PathBuf,
    /// Ids of the packages that are handlers.
    handlers: BTreeSet<String>,
    /// Folders of these, and of all that they depend on by path.
    folders: BTreeSet<PathBuf>,
}

/// Failed build.
#[derive(Debug)]
pub(super) enum BuildFailure {
    /// Compiler's words were shown already.
    Shown,
    /// Reason, in words.
    Said(String),
}

/// Output of `cargo metadata`, as far as it is read.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    /// Registry that it is from; `None`: a folder.
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

impl Package {
    /// Whether it is built as a library that a host can load.
    fn is_cdylib(&self) -> bool {
        self.targets.iter().any(|t| t.crate_types.iter().any(|kind| kind == "cdylib"))
    }

    /// Whether it is written against the SDK.
    fn is_handler(&self) -> bool {
        self.is_cdylib() && self.dependencies.iter().any(|d| d.name == "greenroom-handler")
    }
}

/// Command that runs cargo.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
}

impl Project {
    /// Finds out what a folder holds. Runs `cargo metadata`, which may ask the registry.
    pub(super) fn find(dir: &Path) -> Result<Project, String> {
        let at = dir.display();
        if dir.join("Cargo.toml").is_file() {
            return CargoProject::find(dir).map(Project::Cargo);
        }
        if dir.join("Makefile").is_file() {
            return Ok(Project::Make(dir.to_path_buf()));
        }
        Err(format!("{at} has neither a Cargo.toml nor a Makefile; `greenroom new NAME` makes a handler"))
    }

    /// Folders whose files count as sources.
    pub(super) fn folders(&self) -> BTreeSet<PathBuf> {
        match self {
            Project::Cargo(cargo) => cargo.folders.clone(),
            Project::Make(dir) => BTreeSet::from([dir.clone()]),
        }
    }

    /// Single files that decide a build beside those folders.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        match self {
            Project::Cargo(cargo) => {
                ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "rust-toolchain", ".cargo/config.toml"]
                    .map(|name| cargo.root.join(name))
                    .into()
            }
            Project::Make(_) => Vec::new(),
        }
    }

    /// File that a build itself may write.
    pub(super) fn lock_file(&self) -> Option<PathBuf> {
        match self {
            Project::Cargo(cargo) => Some(cargo.root.join("Cargo.lock")),
            Project::Make(_) => None,
        }
    }

    /// Builds, and returns the libraries. Compilers write to standard error of this process, as on
    /// a command line. `quiet`: only what is wrong.
    pub(super) fn build(&self, quiet: bool, running: &CompilerProcess) -> Result<Vec<PathBuf>, BuildFailure> {
        match self {
            Project::Cargo(cargo) => cargo.build(quiet, running),
            Project::Make(dir) => make(dir, running),
        }
    }
}

/// Reason why a project can't be read, with the SDK's place here if its manifest names another one:
/// the crate was made on another machine, or by another version.
pub(super) fn with_sdk(why: String, dir: &Path) -> String {
    let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    match sdk::lay_down() {
        Ok(here) if manifest.contains("/greenroom/sdk/") && !manifest.contains(&*here.to_string_lossy()) => {
            format!("{why}; if that is for the SDK: it is in {}/handlers/sdk here", here.display())
        }
        _ => why,
    }
}

impl CargoProject {
    /// Asks cargo for the packages of a folder: the one there, or all handlers of a workspace whose
    /// root has none.
    fn find(dir: &Path) -> Result<CargoProject, String> {
        let manifest = dir.join("Cargo.toml");
        let mut command = cargo();
        command.args(["metadata", "--format-version", "1", "--manifest-path"]).arg(&manifest);
        let out = command.stderr(Stdio::inherit()).output();
        let out = out.map_err(|e| format!("cargo can't be run: {e}; Rust comes from https://rustup.rs"))?;
        if !out.status.success() {
            return Err(format!("cargo does not understand {}", manifest.display()));
        }
        let said = serde_json::from_slice(&out.stdout);
        let data: Metadata = said.map_err(|e| format!("the answer of `cargo metadata`: {e}"))?;
        let here: Vec<_> = data.packages.iter().filter(|p| p.manifest_path == manifest).collect();
        if let Some(package) = here.first().filter(|p| !p.is_cdylib()) {
            return Err(format!(
                "package {} makes no library for a host: write `crate-type = [\"cdylib\"]` under [lib] in {}",
                package.name,
                manifest.display()
            ));
        }
        let member = |p: &&Package| data.workspace_members.contains(&p.id) && p.is_handler();
        let chosen = match here.is_empty() {
            false => here,
            true => data.packages.iter().filter(member).collect(),
        };
        if chosen.is_empty() {
            return Err(format!("no package of {} depends on greenroom-handler", manifest.display()));
        }
        let handlers: BTreeSet<_> = chosen.iter().map(|p| p.id.clone()).collect();
        let needed = closure(&handlers, &data.resolve.nodes);
        let own = data.packages.iter().filter(|p| p.source.is_none() && needed.contains(p.id.as_str()));
        let folders = own.filter_map(|p| p.manifest_path.parent()).map(Path::to_path_buf).collect();
        Ok(CargoProject {
            manifest,
            root: data.workspace_root,
            target: data.target_directory.join(BUILDS),
            handlers,
            folders,
        })
    }

    /// Runs cargo, and returns the libraries that it names.
    fn build(&self, quiet: bool, running: &CompilerProcess) -> Result<Vec<PathBuf>, BuildFailure> {
        let mut command = cargo();
        command.args(["build", "--lib", "--message-format=json-render-diagnostics", "--manifest-path"]);
        command.arg(&self.manifest).arg("--target-dir").arg(&self.target);
        PROFILE.iter().for_each(|setting| _ = command.args(["--config", setting]));
        self.handlers.iter().for_each(|id| _ = command.args(["--package", id]));
        if quiet {
            command.arg("--quiet");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = running.start(&mut command).map_err(said("cargo"))?;
        let mut libraries = Vec::new();
        let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
        for line in lines.map_while(Result::ok) {
            let message: Value = serde_json::from_str(&line).unwrap_or_default();
            libraries.extend(self.library_of(&message));
        }
        let status = running.wait(&mut child).map_err(said("cargo"))?;
        match status.success() {
            false => Err(BuildFailure::Shown),
            true if libraries.is_empty() => Err(BuildFailure::Said("cargo has built no library".into())),
            true => Ok(libraries),
        }
    }

    /// Library that a message of cargo tells of.
    fn library_of(&self, message: &Value) -> Option<PathBuf> {
        let is_ours = message["package_id"].as_str().is_some_and(|id| self.handlers.contains(id));
        if message["reason"] != "compiler-artifact" || !is_ours {
            return None;
        }
        let mut files = message["filenames"].as_array()?.iter().filter_map(Value::as_str).map(PathBuf::from);
        files.rfind(|file| file.extension().is_some_and(|e| e == "so"))
    }
}

/// Packages that some packages need, themselves among them.
fn closure<'a>(from: &'a BTreeSet<String>, nodes: &'a [Node]) -> BTreeSet<&'a str> {
    let nodes: BTreeMap<&str, &[String]> =
        nodes.iter().map(|n| (n.id.as_str(), n.dependencies.as_slice())).collect();
    let mut found = BTreeSet::new();
    let mut wanted: Vec<&str> = from.iter().map(String::as_str).collect();
    while let Some(id) = wanted.pop() {
        if found.insert(id) {
            wanted.extend(nodes.get(id).into_iter().flat_map(|n| n.iter()).map(String::as_str));
        }
    }
    found
}

/// Runs make, and returns the libraries with a note of Greenroom: those in the folder of builds, or
/// beside the Makefile if it has another place for them.
fn make(dir: &Path, running: &CompilerProcess) -> Result<Vec<PathBuf>, BuildFailure> {
    let builds = dir.join("target").join(BUILDS);
    std::fs::create_dir_all(&builds).map_err(said("the folder of builds"))?;
    let mut build = std::ffi::OsString::from("BUILD=");
    build.push(&builds);
    let mut command = Command::new("make");
    command.arg("-s").arg("-C").arg(dir).arg(build).stdin(Stdio::null());
    let mut child = running.start(&mut command).map_err(said("make"))?;
    if !running.wait(&mut child).map_err(said("make"))?.success() {
        return Err(BuildFailure::Shown);
    }
    for place in [builds, dir.to_path_buf()] {
        let (found, _) = discover::look(std::slice::from_ref(&place)).map_err(BuildFailure::Said)?;
        if !found.libraries.is_empty() {
            return Ok(found.libraries.into_iter().map(|(path, _)| path).collect());
        }
    }
    let why = "make has built no library with a note of Greenroom: build it into the folder $(BUILD)";
    Err(BuildFailure::Said(why.into()))
}

/// Failure of a program that can't be run, or of its folder.
fn said(what: &str) -> impl Fn(std::io::Error) -> BuildFailure {
    move |e| BuildFailure::Said(format!("{what}: {e}"))
}
