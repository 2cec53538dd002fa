//! Command `greenroom dev`: builds a handler, serves it, and swaps it whenever its sources change.
//!
//! A loop decides everything. Threads of their own wait for what takes long and tell the loop:
//!
//! | file | what it does |
//! | --- | --- |
//! | `project` | what a folder holds, and how it is built |
//! | `sources` | which files count, and which changed |
//! | `running` | the compiler that runs |
//! | `host` | the host, a child |
//! | `keys` | keys of the terminal |
//! | `tell` | words for the author |
//! | `event` | news for the loop |
//!
//! At most a single task is under way: a build, then the host's start or a reload. Edits meanwhile
//! lead to one more build behind it. A failed build changes nothing.

mod event;
mod host;
mod keys;
mod project;
mod running;
mod sources;
mod tell;

use crate::admin::text::operator;
use crate::cli::new::sdk;
use crate::cli::output::CommandFailure;
use crate::cli::reload::ask_until_there_is_room;
use crate::config::source::parse_listen;
use crate::plugin::notices::Notices;
use crate::protocol::admin::{AdminCommand, Reply};
use clap::Args;
use event::DevEvent;
use greenroom_state::endpoint::Endpoint;
use host::{DevHost, runtime_for};
use keys::Keys;
use notify::event::{AccessKind, AccessMode, EventKind};
use project::{BuildFailure, Project};
use running::CompilerProcess;
use rustix::fs::Mode;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use sources::Sources;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use tell::Colours;

/// Time without another event after which changed files count as saved.
const QUIET: Duration = Duration::from_millis(40);
/// Longest wait for that.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(1);
/// Time between two looks that no event asks for.
const LOOK: Duration = Duration::from_secs(2);

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct DevArgs {
    /// Folder of the crate, of its workspace, or of a Makefile
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Address of a service, instead of its own port; may be repeated
    #[arg(long, value_name = "SERVICE=ADDR", value_parser = parse_listen)]
    listen: Vec<(String, Endpoint)>,
    /// Level of the handler's log: error, warn, info, debug, trace
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    log: String,
}

/// Work that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Nothing,
    Build,
    Start,
    Reload,
}

/// State of the command.
struct Dev {
    dir: PathBuf,
    project: Project,
    sources: Sources,
    colours: Colours,
    /// Arguments of the host beside its libraries.
    host_args: Vec<OsString>,
    host: Option<DevHost>,
    work: Work,
    running: CompilerProcess,
    /// First event since the last look, and the last one.
    hints: Option<(Instant, Instant)>,
    /// The configuration changed beside sources, and is put in force behind them.
    configures: bool,
    /// Time of the edit that the work under way is about.
    edited: Instant,
    /// Time of the last look.
    looked: Instant,
    /// First build: cargo shows what it does.
    first: bool,
    sender: Sender<DevEvent>,
}

impl DevArgs {
    /// Runs the command until it is told to end.
    pub(super) fn run(self) -> Result<(), CommandFailure> {
        let failed = CommandFailure::Failed;
        let dir = self.path.canonicalize();
        let dir = dir.map_err(|e| failed(format!("{}: {e}", self.path.display())))?;
        // A library that its group may write is refused, and cargo makes files as the mask says.
        let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
        let _ = rustix::process::umask(mask | Mode::WGRP | Mode::WOTH);
        let project = Project::find(&dir).map_err(|why| failed(with_sdk(why, &dir)))?;
        let (sender, events) = channel();
        let sources = Sources::new(project.folders(), files(&project, &dir), hints(sender.clone()));
        hear_signals(sender.clone()).map_err(|e| failed(format!("signals: {e}")))?;
        let pressed = sender.clone();
        let keys = Keys::listen(move |key| pressed.send(DevEvent::Key(key)).is_ok());
        let now = Instant::now();
        let mut dev = Dev {
            host_args: self.host_args(&dir),
            dir,
            project,
            sources,
            colours: Colours::wanted(),
            host: None,
            work: Work::Nothing,
            running: CompilerProcess::default(),
            hints: None,
            configures: false,
            edited: now,
            looked: now,
            first: true,
            sender,
        };
        let how = if keys.is_some() { "q ends it, r builds anew" } else { "SIGINT ends it" };
        dev.colours.say(&format!("{}: built and swapped at each change; {how}", dev.dir.display()));
        dev.look(now, true);
        dev.run(&events);
        dev.running.end();
        if let Some(host) = dev.host.take() {
            host.stop();
        }
        Ok(())
    }

    /// Arguments of the host: the configuration of the folder, and what the command line says.
    fn host_args(&self, dir: &Path) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--log".into(), (&self.log).into()];
        let config = dir.join("greenroom.toml");
        if config.is_file() {
            args.extend(["--config".into(), config.into()]);
        }
        for (service, endpoint) in &self.listen {
            args.extend(["--listen".into(), format!("{service}={endpoint}").into()]);
        }
        args
    }
}

/// Reason why a project can't be read, with the SDK's place here if its manifest names another one:
/// the crate was made on another machine, or by another version.
fn with_sdk(why: String, dir: &Path) -> String {
    let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    match sdk::lay_down() {
        Ok(here) if manifest.contains("/greenroom/sdk/") && !manifest.contains(&*here.to_string_lossy()) => {
            format!("{why}; if that is for the SDK: it is in {}/handlers/sdk here", here.display())
        }
        _ => why,
    }
}

/// Single files that count beside the project's folders.
fn files(project: &Project, dir: &Path) -> Vec<PathBuf> {
    let mut files = project.files();
    files.push(dir.join("greenroom.toml"));
    files
}

/// Source of events of the system, each of which is a hint for the loop. The thread ends with it.
fn hints(tell: Sender<DevEvent>) -> Notices {
    let (sender, events) = channel::<notify::Result<notify::Event>>();
    thread::spawn(move || {
        for event in events {
            // Compilers read. An event that tells of lost ones is a hint, too.
            let is_read = event.is_ok_and(|e| match e.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
                kind => kind.is_access(),
            });
            if !is_read && tell.send(DevEvent::Hint).is_err() {
                return;
            }
        }
    });
    Notices::new(sender)
}

/// Has signals end the command in order, from a thread of its own.
fn hear_signals(tell: Sender<DevEvent>) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(move || signals.forever().all(|_| tell.send(DevEvent::Signal).is_ok()))?;
    Ok(())
}

impl Dev {
    /// Runs the loop until a key or a signal ends it.
    fn run(&mut self, events: &Receiver<DevEvent>) {
        loop {
            let event = events.recv_timeout(self.next_look().saturating_duration_since(Instant::now()));
            match event {
                Ok(DevEvent::Hint) => {
                    let now = Instant::now();
                    let first = self.hints.map_or(now, |(first, _)| first);
                    self.hints = Some((first, now));
                }
                Ok(DevEvent::Key(b'q') | DevEvent::Signal) => return,
                Ok(DevEvent::Key(b'r')) if self.work == Work::Nothing => self.look(Instant::now(), true),
                Ok(DevEvent::Key(_)) => {}
                Ok(DevEvent::Log(line)) => self.show(&line),
                Ok(DevEvent::Ready(addresses)) => self.serves(&addresses),
                Ok(DevEvent::HostEnded) => self.host_ended(),
                Ok(DevEvent::Built(result)) => self.built(result),
                Ok(DevEvent::Swapped(result)) => {
                    if let Err(why) = result {
                        self.colours.complain(&why);
                    }
                    self.work = Work::Nothing;
                    if std::mem::take(&mut self.configures) {
                        self.reload(AdminCommand::Configure);
                    }
                }
                // What changes while work is under way waits for its end.
                Err(RecvTimeoutError::Timeout) if self.work != Work::Nothing => {}
                Err(RecvTimeoutError::Timeout) => {
                    let edited = self.hints.take().map_or_else(Instant::now, |(first, _)| first);
                    self.look(edited, false);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Time of the next look at the files. While work is under way there is none: the look behind
    /// it finds what changed meanwhile.
    fn next_look(&self) -> Instant {
        match (self.work, self.hints) {
            (Work::Nothing, Some((first, last))) => (last + QUIET).min(first + QUIET_WAIT_MAX),
            (Work::Nothing, None) => self.looked + LOOK,
            _ => Instant::now() + LOOK,
        }
    }

    /// Looks at the files, and begins a build if one changed, or if one is asked for. `edited`:
    /// when the first of them changed.
    fn look(&mut self, edited: Instant, asked: bool) {
        if self.work != Work::Nothing {
            return;
        }
        self.looked = Instant::now();
        let changed = self.sources.changed();
        if changed.is_empty() && !asked {
            return;
        }
        self.edited = edited;
        let config = self.dir.join("greenroom.toml");
        self.configures = self.host.is_some() && changed.contains(&config);
        if self.configures && !asked && changed.len() == 1 {
            self.configures = false;
            return self.reload(AdminCommand::Configure);
        }
        let manifest = !self.first && changed.iter().any(|path| path.ends_with("Cargo.toml"));
        if manifest {
            match Project::find(&self.dir) {
                Ok(project) => {
                    self.sources.move_to(project.folders(), files(&project, &self.dir));
                    self.project = project;
                }
                Err(why) => return self.colours.complain(&why),
            }
        }
        self.work = Work::Build;
        let (project, running, tell) = (self.project.clone(), self.running.clone(), self.sender.clone());
        let quiet = !self.first && !manifest;
        self.first = false;
        thread::spawn(move || tell.send(DevEvent::Built(project.build(quiet, &running))));
    }

    /// Serves what was built, or tells why nothing was.
    fn built(&mut self, result: Result<Vec<PathBuf>, BuildFailure>) {
        self.work = Work::Nothing;
        if let Some(lock) = self.project.lock_file() {
            self.sources.take(&lock);
        }
        let libraries = match result {
            Ok(libraries) => libraries,
            Err(failure) => {
                self.sources.built(None);
                if let BuildFailure::Said(why) = failure {
                    self.colours.complain(&why);
                }
                let goes_on =
                    if self.host.is_some() { "the build before serves on" } else { "nothing serves yet" };
                return self.colours.complain(&format!("the build failed; {goes_on}"));
            }
        };
        self.sources.built(Some(&libraries));
        if self.host.is_some() {
            let together = libraries.len() > 1;
            return self.reload(AdminCommand::Reload {
                service: None,
                from: None,
                together,
                dry_run: false,
                against: None,
            });
        }
        let runtime = runtime_for(&self.dir);
        match DevHost::start(runtime, &libraries, &self.host_args, self.sender.clone()) {
            Ok(host) => (self.host, self.work) = (Some(host), Work::Start),
            Err(why) => self.colours.complain(&why),
        }
    }

    /// Asks the host for a change, from a thread of its own, and tells what came of it.
    fn reload(&mut self, asked: AdminCommand) {
        let Some(runtime) = self.host.as_ref().map(|host| host.runtime().to_path_buf()) else { return };
        self.work = Work::Reload;
        let (edited, colours, tell) = (self.edited, self.colours, self.sender.clone());
        thread::spawn(move || {
            let done = ask_until_there_is_room(&runtime, &asked, |reply| {
                if let Reply::Report(report) = reply {
                    colours.report(&report, edited.elapsed());
                }
            });
            tell.send(DevEvent::Swapped(done.map_err(|e| CommandFailure::from(e).text())))
        });
    }

    /// Tells where the host serves.
    fn serves(&mut self, addresses: &[String]) {
        self.work = Work::Nothing;
        let Some(host) = &mut self.host else { return };
        host.serves = true;
        addresses.iter().for_each(|line| self.colours.say(line));
        let took = self.edited.elapsed().as_secs_f64();
        self.colours.say(&format!("serves after {took:.1} s; for other commands:"));
        self.colours.say(&format!("export GREENROOM_RUNTIME={}", host.runtime().display()));
    }

    /// Tells that the host has ended. The next build starts another one.
    fn host_ended(&mut self) {
        self.work = Work::Nothing;
        let Some(host) = self.host.take() else { return };
        let served = host.serves;
        let how = host.ended();
        match served {
            true => self.colours.complain(&format!("the host {how}; the next build starts another one")),
            false => {
                self.colours.complain("nothing serves; change what is wrong, and the next build is served")
            }
        }
    }

    /// Shows a line of the host's log. A host that ends because an address is taken says so in
    /// several lines: the last one is shown, with a way out.
    fn show(&self, line: &str) {
        let own = operator(rustix::process::geteuid().as_raw(), std::process::id() as i32);
        let starts = self.host.as_ref().is_some_and(|host| !host.serves);
        let is_taken = starts && line.contains("Address already in use");
        if is_taken && !line.starts_with("greenroom: ") {
            return;
        }
        self.colours.log(line, &own);
        if is_taken {
            self.colours.complain(
                "another process has that address: end it (`ss -tulpn` names it), or take another address: \
                 `greenroom dev --listen SERVICE=127.0.0.1:PORT`, `listen` in greenroom.toml, or PORT in the source",
            );
        }
    }
}
