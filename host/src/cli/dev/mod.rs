//! Command `greenroom dev`: builds a handler, serves it, and swaps it whenever its sources change.
//!
//! A loop decides everything. Threads of their own wait for what takes long and tell the loop:
//!
//! | file | what it does |
//! | --- | --- |
//! | `project` | what a folder holds, and how it is built |
//! | `sources` | which files count, and which changed |
//! | `settings` | the folder's configuration, and the files that it names |
//! | `running` | the compiler that runs |
//! | `host`, `addresses` | the host, a child, and where it serves |
//! | `keys` | keys of the terminal |
//! | `tell` | words for the author |
//! | `event` | news for the loop |
//! | `work` | what the loop has under way |
//!
//! At most a single task is under way: a build, then the host's start or a reload. Edits meanwhile
//! lead to one more build behind it. A failed build changes nothing.

mod addresses;
mod event;
mod host;
mod keys;
mod project;
mod running;
mod settings;
mod sources;
mod tell;
mod work;

use crate::admin::text::operator;
use crate::cli::output::{CommandFailure, end_with_the_reader};
use crate::cli::reload::ask_until_there_is_room;
use crate::config::source::parse_listen;
use crate::protocol::admin::{AdminCommand, Reply};
use crate::sys::process_state::write_from_the_background;
use addresses::ToldAddresses;
use clap::Args;
use event::{DevEvent, hear_signals, hints};
use greenroom_core::ledger::Outcome;
use greenroom_state::endpoint::Endpoint;
use host::{DevHost, no_file_is_for_others, only_one, runtime_for};
use keys::Keys;
use project::{BuildFailure, Project, with_sdk};
use running::CompilerProcess;
use settings::{DevConfig, files};
use sources::Sources;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use tell::{Colours, ways_out_of_a_taken_address};
use work::{Then, Work};

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
    /// Directory of the host's private copies of libraries; not on a noexec mount [default: in its
    /// runtime directory]
    #[arg(long, value_name = "DIR")]
    copies: Option<PathBuf>,
    /// Level of the handler's log: error, warn, info, debug, trace
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    log: String,
}

/// State of the command.
struct Dev {
    dir: PathBuf,
    project: Project,
    config: DevConfig,
    sources: Sources,
    colours: Colours,
    /// Arguments of the host beside its libraries.
    host_args: Vec<OsString>,
    host: Option<DevHost>,
    addresses: ToldAddresses,
    work: Work,
    running: CompilerProcess,
    /// First event since the last look, and the last one.
    hints: Option<(Instant, Instant)>,
    /// Step behind the reload that is under way.
    then: Then,
    /// Several libraries are reloaded as one commit.
    together: bool,
    /// A build was asked for by a key; one that comes while work is under way waits for its end.
    asked: bool,
    /// Time of the edit that the work under way is about.
    edited: Instant,
    /// Time of the last look.
    looked: Instant,
    /// First build: cargo shows what it does.
    first: bool,
    /// Cargo did not understand the manifest when it was asked last.
    unread: bool,
    sender: Sender<DevEvent>,
}

impl DevArgs {
    /// Runs the command until it is told to end.
    pub(super) fn run(self) -> Result<(), CommandFailure> {
        let failed = CommandFailure::Failed;
        let dir = self.path.canonicalize();
        let dir = dir.map_err(|e| failed(format!("{}: {e}", self.path.display())))?;
        let _only = only_one(&dir).map_err(failed)?;
        end_with_the_reader();
        // Compilers run in groups of their own.
        write_from_the_background();
        no_file_is_for_others();
        let project = Project::find(&dir).map_err(|why| failed(with_sdk(why, &dir)))?;
        let config = DevConfig::of(&dir);
        let (sender, events) = channel();
        let sources = Sources::new(project.folders(), files(&project, &config), hints(sender.clone()));
        hear_signals(sender.clone()).map_err(|e| failed(format!("signals: {e}")))?;
        let pressed = sender.clone();
        let keys = Keys::listen(move |key| pressed.send(DevEvent::Key(key)).is_ok());
        let now = Instant::now();
        let mut dev = Dev {
            host_args: self.host_args(&config),
            dir,
            project,
            config,
            sources,
            colours: Colours::wanted(),
            host: None,
            addresses: ToldAddresses::default(),
            work: Work::Nothing,
            running: CompilerProcess::default(),
            hints: None,
            then: Then::Nothing,
            together: false,
            asked: false,
            edited: now,
            looked: now,
            first: true,
            unread: false,
            sender,
        };
        let how = if keys.is_some() { "q ends it, r builds anew" } else { "SIGINT ends it" };
        dev.colours.say(&format!("{}: built and swapped at each change; {how}", dev.dir.display()));
        dev.config.others(&dev.project).iter().for_each(|why| dev.colours.complain(why));
        dev.look(now, true);
        dev.run(&events);
        dev.running.end();
        if let Some(host) = dev.host.take() {
            host.stop(&events);
        }
        Ok(())
    }

    /// Arguments of the host: the configuration of the folder, and what the command line says.
    fn host_args(&self, config: &DevConfig) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--log".into(), (&self.log).into()];
        args.extend(["--config-may-lack".into(), "--config".into(), config.path().into()]);
        self.copies.iter().for_each(|dir| args.extend(["--copies".into(), dir.into()]));
        for (service, endpoint) in &self.listen {
            args.extend(["--listen".into(), format!("{service}={endpoint}").into()]);
        }
        args
    }
}

impl Dev {
    /// Runs the loop until a key or a signal ends it.
    fn run(&mut self, events: &Receiver<DevEvent>) {
        loop {
            if self.work == Work::Nothing && std::mem::take(&mut self.asked) {
                self.look(Instant::now(), true);
            }
            let event = events.recv_timeout(self.next_look().saturating_duration_since(Instant::now()));
            match event {
                Ok(DevEvent::Hint) => {
                    let now = Instant::now();
                    let first = self.hints.map_or(now, |(first, _)| first);
                    self.hints = Some((first, now));
                }
                Ok(DevEvent::Key(b'q') | DevEvent::Signal) => return,
                Ok(DevEvent::Key(key)) => self.asked |= key == b'r',
                Ok(DevEvent::Log(line)) => self.show(&line),
                Ok(DevEvent::Ready(addresses)) => self.serves(&addresses),
                Ok(DevEvent::HostEnded) => self.host_ended(),
                Ok(DevEvent::Built(result)) => self.built(result),
                Ok(DevEvent::Swapped { refused }) => self.swapped(refused),
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
        let of_config = changed.iter().filter(|path| self.config.files().any(|file| file == *path)).count();
        let configures = self.host.is_some() && of_config > 0;
        if of_config > 0 {
            self.config.read_again();
            let files = files(&self.project, &self.config);
            self.sources.move_to(self.project.folders(), files);
            // A file that is named from now on was read with the configuration.
            self.config.files().for_each(|file| self.sources.take(file));
        }
        if configures && !asked && changed.len() == of_config {
            self.then = Then::Nothing;
            return self.reload(AdminCommand::Configure);
        }
        if configures {
            self.then = Then::Configure;
        }
        if !self.dir.exists() {
            let gone = self.dir.display();
            return self
                .colours
                .complain(&format!("{gone} is gone; what was built serves on until it is back"));
        }
        let manifest =
            !self.first && (self.unread || changed.iter().any(|path| path.ends_with("Cargo.toml")));
        if manifest {
            let found = Project::find(&self.dir);
            self.unread = found.is_err();
            match found {
                Ok(project) => {
                    self.sources.move_to(project.folders(), files(&project, &self.config));
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
        self.together = libraries.len() > 1;
        if let Some(host) = &self.host {
            host.lacks(&libraries).iter().for_each(|why| self.colours.complain(why));
            return self.reload_all();
        }
        let runtime = runtime_for(&self.dir);
        match DevHost::start(runtime, &libraries, &self.host_args, self.sender.clone()) {
            Ok(host) => (self.host, self.work) = (Some(host), Work::Start),
            Err(why) => self.colours.complain(&why),
        }
    }

    /// Goes on behind a reload.
    fn swapped(&mut self, refused: bool) {
        self.work = Work::Nothing;
        match std::mem::replace(&mut self.then, Then::Nothing) {
            Then::Configure => {
                self.then = if refused { Then::Reload } else { Then::Nothing };
                self.reload(AdminCommand::Configure);
            }
            Then::Reload if !refused => self.reload_all(),
            _ => {}
        }
    }

    /// Has the host load what was built.
    fn reload_all(&mut self) {
        let (service, from, against) = (None, None, None);
        let together = self.together;
        self.reload(AdminCommand::Reload { service, from, together, dry_run: false, against });
    }

    /// Asks the host for a change, from a thread of its own, and tells what came of it.
    fn reload(&mut self, asked: AdminCommand) {
        let Some(runtime) = self.host.as_ref().map(|host| host.runtime().to_path_buf()) else { return };
        self.work = Work::Reload;
        let (edited, colours, tell) = (self.edited, self.colours, self.sender.clone());
        let addresses = self.addresses.clone();
        let (config, configures) = (self.config.clone(), matches!(asked, AdminCommand::Configure));
        thread::spawn(move || {
            let (mut place, mut refused) = (None, false);
            let done = ask_until_there_is_room(&runtime, &asked, |reply| {
                if let Reply::Report(report) = reply {
                    // The refusal of a library is that of the configuration, in the same words.
                    if configures && refused && report.build.is_empty() {
                        return;
                    }
                    colours.report(&report, edited.elapsed());
                    refused |= report.outcome == Outcome::Refused;
                    place = place.take().or_else(|| config.place(&report.reason, configures));
                }
            });
            place.iter().for_each(|place| colours.complain(place));
            if let Err(why) = done.map_err(|e| CommandFailure::from(e).text()) {
                colours.complain(&why);
                refused = true;
            }
            addresses.changes(&runtime).iter().for_each(|line| colours.say(line));
            tell.send(DevEvent::Swapped { refused })
        });
    }

    /// Tells where the host serves.
    fn serves(&mut self, addresses: &[String]) {
        self.work = Work::Nothing;
        let Some(host) = &mut self.host else { return };
        host.serves = true;
        addresses.iter().for_each(|line| self.colours.say(line));
        self.addresses.begin(addresses);
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
        self.colours.complain(&match served {
            true => format!("the host {how}; the next build starts another one"),
            false => "nothing serves; change what is wrong, and the next build is served".into(),
        });
    }

    /// Shows a line of the host's log. A host that cannot start says why in several lines: the last
    /// one is shown, with a way out.
    fn show(&self, line: &str) {
        let own = operator(rustix::process::geteuid().as_raw(), std::process::id() as i32);
        let starts = self.host.as_ref().is_some_and(|host| !host.serves);
        let is_taken = starts && line.contains("Address already in use");
        // The last line says it again.
        let is_repeated =
            line.ends_with(" by=start") || line.contains("last output of the worker: greenroom: ");
        if !line.starts_with("greenroom: ") && (is_taken || starts && is_repeated) {
            return;
        }
        self.colours.log(line, &own);
        // The last words of a host that does not start, behind the log.
        if starts && line.starts_with("greenroom: ") {
            self.config.place(line, true).iter().for_each(|place| self.colours.complain(place));
        }
        if is_taken {
            self.colours.complain(&ways_out_of_a_taken_address(line));
        }
    }
}
