//! Command `greenroom serve`: the host itself.
//!
//! This process becomes the keeper, and the keeper starts the worker. With `--no-keeper` both
//! are threads of this process. The order of the start:
//!
//! | step | if it fails |
//! | --- | --- |
//! | read configuration and command line, change the user, find libraries | exit code 1 or 2 |
//! | take the runtime directory | exit code 1: another host, or an unsafe directory |
//! | start to watch files | exit code 1, or a warning if `watch` is off |
//! | listen on the admin socket, run the keeper | exit code 1 |
//! | worker loads libraries and opens ports | exit code 1, with the worker's reason |
//!
//! Standard output gets the addresses and the line `ready`, once the host serves. Scripts wait
//! for that line. All else goes to the log.

use crate::admin::access::Access;
use crate::admin::server::AdminSocket;
use crate::admin::{audit, caller};
use crate::cli::check_config::{self, check_saved};
use crate::cli::confined::confined;
use crate::cli::host_user;
use crate::cli::output::{CommandFailure, complain, try_print_text};
use crate::cli::signals;
use crate::config::source::{ConfigSource, parse_listen};
use crate::config::{Config, is_text};
use crate::keeper::Keeper;
use crate::keeper::events::Event;
use crate::keeper::options::Options;
use crate::keeper::upkeep::Upkeep;
use crate::logs::format::LogTo;
use crate::logs::levels::{Levels, LogLevel};
use crate::logs::{self, LogGuard, LogStart};
use crate::plugin::discover;
use crate::plugin::watch;
use crate::protocol::found::Found;
use crate::runtime_dir::save_lock::SaveLock;
use crate::runtime_dir::{Runtime, socket_path};
use crate::sys::process_state::limits_in_force;
use crate::sys::user::HostUser;
use crate::sys::{activation, user};
use crate::worker::takeover;
use clap::Args;
use greenroom_state::endpoint::Endpoint;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest path of a Unix socket, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Serve {
    /// Handler libraries, and directories from which every library with a Greenroom note is taken
    #[arg(value_name = "HANDLER.so | DIRECTORY")]
    handlers: Vec<PathBuf>,
    /// The configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The configuration file need not be there, and may come later (`greenroom dev` says so)
    #[arg(long, hide = true, requires = "config")]
    config_may_lack: bool,
    /// Address of a service, instead of its own port; may be repeated
    #[arg(long, value_name = "SERVICE=ADDR", value_parser = parse_listen)]
    listen: Vec<(String, Endpoint)>,
    /// Directory of private copies of libraries; not on a noexec mount [default: copies in the
    /// runtime directory]
    #[arg(long, value_name = "DIR")]
    copies: Option<PathBuf>,
    /// Load new builds only when `greenroom reload` says so, not as soon as a file changes
    #[arg(long)]
    no_watch: bool,
    /// Serve in this one process, for debuggers and profilers. A handler's crash or a kill ends the
    /// sessions, an upgrade is impossible, and each session takes two descriptors
    #[arg(long)]
    no_keeper: bool,
    /// Check whether a host could start with all this, or go on with it, and end
    #[arg(long)]
    check_config: bool,
    /// Go on as this user, by name or number, if root starts the host. The keeper still binds ports
    /// below 1024
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Stop in order once this process, which started the host, has ended (`greenroom dev` says so)
    #[arg(long, hide = true, value_name = "PID")]
    end_with: Option<i32>,
    /// Level of the log: error, warn, info, debug, trace [default: log.level of the configuration,
    /// or info]
    #[arg(long, env = "GREENROOM_LOG", value_name = "LEVEL")]
    log: Option<LogLevel>,
}

impl Serve {
    /// Runs the host until it stops. Blocks this thread, and owns the runtime directory until
    /// it returns.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        // First: nothing else may have opened a file or started a thread.
        let given = activation::take().map_err(CommandFailure::Failed)?;
        user::keep_ports_from_children();
        let failed = |what: &str, e: std::io::Error| CommandFailure::Failed(format!("{what}: {e}"));
        // Before the working directory changes.
        let path = self.config.as_deref().map(absolute).transpose()?;
        let (may_lack, listen) = (self.config_may_lack, self.listen.clone());
        let source = ConfigSource { path, may_lack, listen, no_watch: self.no_watch, log: self.log };
        let dir = absolute(dir)?;
        let copies = self.copies.as_deref().map(absolute).transpose()?;
        let dirs = [Some(&*dir), copies.as_deref()].into_iter().flatten().filter(|_| !self.check_config);
        let (config, user) = host_user::read_as_user(&source, self.user.as_deref(), dirs)?;
        // A change of the user ends such a request.
        self.end_with.map_or(Ok(()), end_with).map_err(CommandFailure::Failed)?;
        let (found, left_out) = self.found(&config)?;
        check_paths(&dir, copies.as_deref(), &config).map_err(CommandFailure::Failed)?;
        if self.check_config {
            left_out.iter().for_each(|why| complain(&format!("{why}; it is left out")));
            return check_config::run(&config, &found);
        }
        check_saved(&config).map_err(CommandFailure::Failed)?;
        let runtime = Runtime::take(&dir, copies.as_deref()).map_err(CommandFailure::Failed)?;
        let save = config.save.file.clone().unwrap_or_else(|| runtime.save());
        let save_lock = SaveLock::take(&save).map_err(CommandFailure::Failed)?;
        let (_log, log_to, log_file) = start_log(&config, self.no_keeper)?;
        left_out.iter().for_each(|why| tracing::warn!("{why}; it is left out"));
        log_process(user.as_ref());
        begin_process(self.no_keeper).map_err(|e| failed("this process", e))?;

        let (ours, theirs) = match self.no_keeper {
            true => crate::protocol::link::pair().map(|(a, b)| (Some(a), Some(b))),
            false => Ok((None, None)),
        }
        .map_err(|e| failed("the keeper's socket", e))?;
        audit::check(config.admin.audit.as_deref()).map_err(CommandFailure::Failed)?;
        config.check_socket_groups().map_err(CommandFailure::Failed)?;
        config.observe.check_token_file().map_err(CommandFailure::Failed)?;
        let access = Arc::new(Access::new(runtime.socket(), &config.admin));
        let options = Options {
            access: access.clone(),
            save,
            confined: confined(&config, |what| tracing::warn!("{what}"))?,
            config,
            source,
            found,
            given,
            host_number: runtime.host_number(),
            runtime: dir.clone(),
            copies: runtime.copies().into(),
            log_to,
            log_file,
            in_process: ours,
        };
        let (watched, watches) = (options.found.clone(), options.config.watch);
        let keeper = Keeper::new(options).map_err(|e| failed("the keeper can't be started", e))?;
        watch_files(&keeper, &watched, watches).map_err(CommandFailure::Failed)?;
        hear_signals(&keeper).map_err(|e| failed("signals", e))?;
        let socket = AdminSocket::listen(access, keeper.mailbox().for_kind(Event::Asked))
            .map_err(|e| failed(&runtime.socket().display().to_string(), e))?;
        // Owns the runtime directory and the locks from here on, until this function returns.
        let _upkeep =
            Upkeep::start((runtime, socket), save_lock, &keeper).map_err(|e| failed("the upkeep", e))?;
        let ended = match theirs {
            None => keeper.run(ready),
            Some(theirs) => run_in_one_process(keeper, theirs),
        };
        caller::finish();
        ended.map_err(CommandFailure::Failed)
    }

    /// Libraries and directories to serve: those of the command line and those of the
    /// configuration. Also reasons why files of directories are left out.
    fn found(&self, config: &Config) -> Result<(Found, Vec<String>), CommandFailure> {
        let sources: Vec<_> = self.handlers.iter().chain(&config.handlers).cloned().collect();
        if sources.is_empty() {
            let text =
                "nothing to serve: name a handler library or a directory of them, such as target/release";
            return Err(CommandFailure::Usage(text.into()));
        }
        discover::look(&sources).map_err(CommandFailure::Failed)
    }
}

/// Starts the log. Returns its place, and the path of the file that standard error is, if it is
/// one.
fn start_log(config: &Config, no_keeper: bool) -> Result<(LogGuard, LogTo, Option<PathBuf>), CommandFailure> {
    // A worker could not be told of another path.
    let standard_error = logs::file::of_standard_error().filter(|path| is_text(path).is_ok());
    let to = config.log.to();
    let guard = logs::start(LogStart {
        process: if no_keeper { "host" } else { "keeper" },
        to: &to,
        standard_error: standard_error.clone(),
        apart: false,
        levels: Levels { all: config.log.level(), ..Levels::default() },
    });
    let guard = guard.map_err(|e| CommandFailure::Failed(format!("the log: {e}")))?;
    Ok((guard, to, standard_error))
}

/// Runs the keeper on a thread beside the worker, until both have ended.
fn run_in_one_process(keeper: Keeper, link: OwnedFd) -> Result<(), String> {
    tracing::warn!(
        "--no-keeper: all in one process; a crash of a handler ends the host and its sessions, and neither \
         upgrades nor fresh workers are possible"
    );
    let thread = std::thread::Builder::new().name("keeper".into());
    let keeper =
        thread.spawn(move || keeper.run(ready)).map_err(|e| format!("the keeper can't be started: {e}"))?;
    let worker = takeover::start::serve(link, false);
    let keeper = keeper.join().unwrap_or_else(|_| Err("the keeper panicked".into()));
    keeper.and(worker)
}

/// Has the kernel send this process SIGTERM when the thread that started it ends. Fails if that has
/// happened already.
fn end_with(parent: i32) -> Result<(), String> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(|e| format!("--end-with: {e}"))?;
    // Asked behind the call: a parent that ends from now on is noticed.
    match getppid().map(Pid::as_raw_nonzero) {
        Some(now) if now.get() == parent => Ok(()),
        _ => Err(format!("process {parent}, which started this host, has ended")),
    }
}

/// Bytes that a pipe takes at once if it takes any, less those of a line.
const PIPE_BYTES: usize = 4000;

/// Prints the addresses, once the host serves. The host serves although nobody reads them: a thread
/// waits for a reader that has stopped.
fn ready(ports: &[(String, String)]) {
    let lines: String = ports.iter().map(|(service, at)| format!("{service} on {at}\n")).collect();
    let nobody = |e| tracing::warn!("nobody is told that the host is ready: standard output: {e}");
    let takes_all = lines.len() < PIPE_BYTES && {
        let (stdout, now) = (std::io::stdout(), Timespec { tv_sec: 0, tv_nsec: 0 });
        poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], Some(&now)).is_ok_and(|ready| ready > 0)
    };
    let print = move || try_print_text(&(lines + "ready\n")).unwrap_or_else(nobody);
    if takes_all {
        return print();
    }
    if let Err(e) = std::thread::Builder::new().name("ready".into()).spawn(print) {
        nobody(e);
    }
}

/// Logs the user that the host goes on as, if it is another one, and the limits that it has
/// inherited and cannot raise, or must not: they may be meant.
fn log_process(user: Option<&HostUser>) {
    user.iter().for_each(|user| tracing::info!("the host runs as user {user}"));
    for limit in limits_in_force() {
        tracing::warn!("{limit}: what needs more fails, or ends the process");
    }
}

/// Has the keeper hear of changed files, also while `watch` is off: the configuration may change,
/// and `status` tells of them. A failure is logged only, if `watch` is off.
///
/// The keeper watches, not the worker: a process with a watch takes long to die, and what changes
/// meanwhile would be missed.
fn watch_files(keeper: &Keeper, found: &Found, watch: bool) -> Result<(), String> {
    let mailbox = keeper.mailbox().for_kind(Event::Watched);
    // After the host has stopped a post is refused, and nobody needs it any more.
    match watch::start(found, keeper.config_files(), move |news| _ = mailbox.post(news)) {
        Err(why) if !watch => tracing::warn!("{why}"),
        other => return other,
    }
    Ok(())
}

/// Refuses paths of the host that no worker could be told of, and that no socket could have.
fn check_paths(dir: &Path, copies: Option<&Path>, config: &Config) -> Result<(), String> {
    [Some(dir), copies, config.save.file.as_deref(), config.log.file.as_deref()]
        .into_iter()
        .flatten()
        .try_for_each(is_text)?;
    let socket = socket_path(dir);
    match socket.as_os_str().len() {
        n if n > SOCKET_PATH_BYTES_MAX => Err(format!(
            "{}: the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes, not {n}; choose a shorter --runtime",
            socket.display()
        )),
        _ => Ok(()),
    }
}

/// Makes a path absolute by the working directory of the command.
fn absolute(path: &Path) -> Result<PathBuf, CommandFailure> {
    std::path::absolute(path).map_err(|e| CommandFailure::Failed(format!("{}: {e}", path.display())))
}

/// Prepares the process for a long life, once all paths are absolute. A directory that is to be
/// unmounted or removed must not be held, so the working directory becomes `/`.
fn begin_process(no_keeper: bool) -> std::io::Result<()> {
    raise_descriptor_limit();
    std::env::set_current_dir("/")?;
    // With `--no-keeper` a handler's children are this process's own, and nobody else reaps here.
    if !no_keeper && let Err(e) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!("processes that handlers leave behind are not reaped here: {e}");
    }
    signals::survive()
}

/// Passes the signals that have a meaning on to the keeper, from a thread of its own.
fn hear_signals(keeper: &Keeper) -> std::io::Result<()> {
    let mailbox = keeper.mailbox();
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD])?;
    let thread = std::thread::Builder::new().name("signals".into());
    thread.spawn(move || signals.forever().all(|signal| mailbox.post(Event::Signal(signal))))?;
    Ok(())
}

/// Raises the soft limit of open files to the hard one. A session is a descriptor, and the soft
/// limit is often 1,024 for programs that use select(2). A failure is logged: the host serves
/// fewer sessions.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("the limit of open files can't be raised to {maximum:?}: {e}");
    }
}
