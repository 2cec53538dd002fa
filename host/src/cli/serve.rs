//! `greenroom serve`: the host itself.

use super::{Failure, print_text};
use crate::admin;
use crate::config::{Config, parse_listen};
use crate::mail::Message;
use crate::plugin::inspect::has_note;
use crate::runtime::Runtime;
use crate::worker::Worker;
use crate::{logs, watch};
use clap::Args;
use greenroom_core::reload::Outcome;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tracing_subscriber::filter::LevelFilter;

#[derive(Args)]
pub(super) struct Serve {
    /// Handler libraries, and directories from which every library with a Greenroom note is taken
    #[arg(value_name = "HANDLER.so | DIRECTORY")]
    handlers: Vec<PathBuf>,
    /// The configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where a service listens, instead of its own port; may be repeated
    #[arg(long, value_name = "SERVICE=ADDR", value_parser = parse_listen)]
    listen: Vec<(String, SocketAddr)>,
    /// Where private copies of libraries go; not on a noexec mount [default: copies in the runtime directory]
    #[arg(long, value_name = "DIR")]
    copies: Option<PathBuf>,
    /// How much is logged: error, warn, info, debug, trace
    #[arg(long, env = "GREENROOM_LOG", default_value = "info", value_name = "LEVEL")]
    log: LevelFilter,
}

impl Serve {
    pub(super) fn run(self, dir: &Path) -> Result<(), Failure> {
        let mut config = match &self.config {
            Some(path) => Config::read(path).map_err(Failure::Failed)?,
            None => Config::default(),
        };
        config.override_listen(&self.listen);
        let sources: Vec<_> = self.handlers.iter().chain(&config.handlers).cloned().collect();
        if sources.is_empty() {
            let text =
                "nothing to serve: name a handler library or a directory of them, such as target/release";
            return Err(Failure::Usage(text.into()));
        }
        let found = Found::look(&sources).map_err(Failure::Failed)?;
        let runtime = Runtime::take(dir, self.copies.as_deref()).map_err(Failure::Failed)?;
        let _log = logs::start(self.log);
        raise_descriptor_limit();

        let failed = |what: &str, e: std::io::Error| Failure::Failed(format!("{what}: {e}"));
        let mut worker = Worker::new(config.clone(), runtime.copies().into(), logs::abi_level())
            .map_err(|e| failed("the loop can't be started", e))?;
        // Before the first load, so that a build that ends meanwhile isn't missed.
        let mailbox = worker.mailbox();
        let links = found.links();
        watch::start(found.watched(), move |path| {
            // What a link leads to changed: the library is known by the link.
            let path = links.get(&path).cloned().unwrap_or(path);
            mailbox.post(Message::Changed(path));
        })
        .map_err(Failure::Failed)?;
        for dir in found.directories {
            worker.discover(dir);
        }
        let paths: Vec<_> = found.libraries.iter().map(|(path, _)| path.clone()).collect();
        let reports = worker.load_all(&paths).map_err(|e| failed("the loop", e))?;
        for (report, (path, named)) in reports.iter().zip(&found.libraries) {
            if report.outcome == Outcome::Refused && *named {
                return Err(Failure::Failed(format!("{}: {}", path.display(), report.reason)));
            }
        }

        let mailbox = worker.mailbox();
        let mut signals =
            signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(|e| failed("signals", e))?;
        std::thread::spawn(move || signals.forever().all(|signal| mailbox.post(Message::Signal(signal))));
        admin::start(&runtime.socket(), worker.mailbox())
            .map_err(|e| failed(&runtime.socket().display().to_string(), e))?;

        let ports = worker.ports();
        for service in config.service.keys() {
            if !ports.iter().any(|(name, _)| name == service) {
                tracing::warn!("service {service} is configured, but no library offers it");
            }
        }
        for (service, addr) in ports {
            print_text(&format!("{service} on tcp://{addr}\n"));
        }
        print_text("ready\n");
        let ended = worker.run().map_err(|e| failed("the loop", e));
        admin::finish();
        ended
    }
}

/// A session is a descriptor, and the soft limit is often 1,024 for the sake of programs that use select(2).
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("the limit of open files can't be raised to {maximum:?}: {e}");
    }
}

/// What the arguments name.
struct Found {
    /// Each library, and whether it was named itself: one that was must load.
    libraries: Vec<(PathBuf, bool)>,
    directories: Vec<PathBuf>,
}

impl Found {
    fn look(sources: &[PathBuf]) -> Result<Found, String> {
        let mut found = Found { libraries: Vec::new(), directories: Vec::new() };
        for source in sources {
            if source.is_dir() {
                let dir = source.canonicalize().map_err(|e| format!("{}: {e}", source.display()))?;
                let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
                let mut libraries: Vec<_> =
                    entries.flatten().map(|e| e.path()).filter(|p| is_handler(p)).collect();
                libraries.sort();
                found.libraries.extend(libraries.into_iter().map(|path| (path, false)));
                found.directories.push(dir);
            } else {
                let path = in_real_dir(source)?;
                // Named beside its directory, it counts as named.
                found.libraries.retain(|(p, _)| *p != path);
                found.libraries.push((path, true));
            }
        }
        let mut seen = BTreeSet::new();
        found.libraries.retain(|(path, _)| seen.insert(path.clone()));
        Ok(found)
    }

    /// The libraries that are links, by what they lead to.
    fn links(&self) -> BTreeMap<PathBuf, PathBuf> {
        let paths = self.libraries.iter().map(|(path, _)| path);
        let targets = paths.filter_map(|path| Some((path.canonicalize().ok()?, path.clone())));
        targets.filter(|(target, path)| target != path).collect()
    }

    fn watched(&self) -> Vec<PathBuf> {
        let links = self.links();
        let files = self.libraries.iter().map(|(path, _)| path).chain(links.keys());
        let all: BTreeSet<_> = files
            .filter_map(|path| path.parent())
            .chain(self.directories.iter().map(PathBuf::as_path))
            .collect();
        all.into_iter().map(Path::to_path_buf).collect()
    }
}

/// The path as the watcher reports it: the directory resolved, the file's own name kept, as it may be a link.
fn in_real_dir(path: &Path) -> Result<PathBuf, String> {
    let dir = match path.parent() {
        Some(p) if p != Path::new("") => p,
        _ => Path::new("."),
    };
    let dir = dir.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
    let name = path.file_name().ok_or_else(|| format!("{} names no file", path.display()))?;
    Ok(dir.join(name))
}

fn is_handler(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "so")
        && path.is_file()
        && std::fs::read(path).is_ok_and(|bytes| has_note(&bytes))
}
