//! Command `greenroom new`: a handler's crate of its own, anywhere on disk.
//!
//! The crate depends on nothing but the registry of crates and the SDK, which this binary lays
//! down (`sdk`). The folder is made under another name and renamed when it is whole, so a failure
//! leaves nothing.

mod name;
pub(super) mod sdk;
mod template;

use crate::cli::output::{CommandFailure, print_text};
use clap::Args;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use template::Kind;

/// Lock file of this repository: the versions that the SDK was tested with.
const LOCK: &str = include_str!("../../../../Cargo.lock");

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct New {
    /// Name of the handler, and of the folder that is made for it; a path makes the folder there
    name: OsString,
    /// Kind of its clients, or the language of its source
    #[arg(long, value_enum, default_value_t = Kind::Line)]
    kind: Kind,
    /// Port on loopback
    #[arg(long, default_value_t = template::PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

impl New {
    /// Runs the command. Makes the folder, or nothing.
    pub(super) fn run(self) -> Result<(), CommandFailure> {
        let place = Path::new(&self.name);
        let name = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name::check(name).map_err(CommandFailure::Usage)?;
        let failed = CommandFailure::Failed;
        if fs::symlink_metadata(place).is_ok() {
            let at = Path::new(&self.name).display();
            return Err(failed(format!("{at} exists already: choose another name, or remove it")));
        }
        let above = place.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !above.is_dir() {
            return Err(failed(format!("{} is not a folder: make it first", above.display())));
        }
        let sdk = sdk::lay_down().map_err(failed)?;
        let files = template::files(self.kind, name, self.port, &sdk).map_err(failed)?;
        let unfinished = above.join(format!(".{name}.new-{}", std::process::id()));
        let made = write(&unfinished, &files).and_then(|()| {
            if self.kind != Kind::C {
                settle_workspace(above, &unfinished)?;
            }
            renameat_with(CWD, &unfinished, CWD, place, RenameFlags::NOREPLACE)
                .map_err(|e| format!("{}: {e}", Path::new(&self.name).display()))
        });
        if let Err(why) = made {
            let _ = fs::remove_dir_all(&unfinished);
            return Err(failed(why));
        }
        join_workspace(place, self.kind);
        print_text(&self.told(name, &sdk));
        Ok(())
    }

    /// Next steps, for the author.
    fn told(&self, name: &str, sdk: &Path) -> String {
        let (dir, port) = (Path::new(&self.name).display(), self.port);
        let (test, talk) = match self.kind {
            Kind::Line | Kind::Dialogue => ("cargo test", format!("nc 127.0.0.1 {port}")),
            Kind::C => ("make check", format!("nc 127.0.0.1 {port}")),
            Kind::Telnet => ("cargo test", format!("telnet 127.0.0.1 {port}")),
            Kind::Websocket => ("cargo test", format!("open http://127.0.0.1:{port}/")),
            Kind::Udp => ("cargo test", format!("nc -u 127.0.0.1 {port}")),
        };
        format!(
            "{name} is made. Next:\n\n    cd {dir}\n    {test:24} # tries it without a host\n    \
             {:24} # serves it, and swaps it at each save\n    {talk:24} # talks to it, from another terminal\n\n\
             The book for authors: {}\n",
            "greenroom dev",
            sdk.join("handlers/book/README.md").display()
        )
    }
}

/// Writes files below a folder that is made for them.
fn write(dir: &Path, files: &[(PathBuf, String)]) -> Result<(), String> {
    for (name, text) in files {
        let path = dir.join(name);
        let parent = path.parent().unwrap_or(dir);
        fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// Prepares a crate for the workspace that it will lie in, if there is one: the profiles and the
/// lock file are those of its root. Otherwise the crate gets the lock file of this repository, with
/// which its first build needs no newer crate.
fn settle_workspace(above: &Path, crate_dir: &Path) -> Result<(), String> {
    if !lies_in_workspace(above) {
        let path = crate_dir.join("Cargo.lock");
        return fs::write(&path, LOCK).map_err(|e| format!("{}: {e}", path.display()));
    }
    let path = crate_dir.join("Cargo.toml");
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let text = fs::read_to_string(&path).map_err(failed)?;
    let without = text.split_once(template::PROFILES).map_or(text.as_str(), |(before, _)| before);
    fs::write(&path, without.trim_end().to_owned() + "\n").map_err(failed)
}

/// Whether a manifest of a workspace lies in a folder, or above it.
fn lies_in_workspace(dir: &Path) -> bool {
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    real.ancestors().any(|dir| {
        let text = fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
        text.parse::<toml::Table>().is_ok_and(|manifest| manifest.contains_key("workspace"))
    })
}

/// Makes a crate that its workspace does not name a workspace of its own: cargo would refuse it.
/// Cargo is the judge. If it cannot be asked, nothing changes, and its next run says what is wrong.
fn join_workspace(dir: &Path, kind: Kind) {
    if kind == Kind::C || !lies_in_workspace(dir.parent().unwrap_or(dir)) {
        return;
    }
    let manifest = dir.join("Cargo.toml");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(&manifest);
    if let Ok(out) = cargo.output()
        && !out.status.success()
        // Other members may be missing still: that is no reason.
        && String::from_utf8_lossy(&out.stderr).contains("believes it's in a workspace when it's not")
        && let Ok(text) = fs::read_to_string(&manifest)
    {
        let own = "\n# The workspace around it does not name it: without this line cargo would refuse it.\n[workspace]\n";
        let _ = fs::write(&manifest, text + own);
        let _ = fs::write(dir.join("Cargo.lock"), LOCK);
    }
}
