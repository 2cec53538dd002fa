//! Command `greenroom record`: writes the turns of sessions to a file, to be replayed.
//!
//! The file holds what the sessions were told, what they asked the host, and what they did. It is
//! whole at each moment up to its last lines, so a command that is killed leaves a recording, too.
//! A recording ends in time, at its size, with its sessions, with the host, or by a signal.

use crate::admin::follow::{Watched, follow};
use crate::cli::output::{CommandFailure, complain, print_json};
use crate::cli::watched::WatchedService;
use crate::plugin::recording::RecordingWriter;
use crate::protocol::admin::Reply;
use crate::protocol::watch::RecordOrder;
use clap::Args;
use greenroom_core::watch::subject::Subject;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time after which what was heard is in the file.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct Record {
    /// A session; may be repeated
    #[arg(long = "session", value_name = "ID", conflicts_with_all = ["service", "peer"])]
    sessions: Vec<u64>,
    #[command(flatten)]
    of: WatchedService,
    /// Of a service: so many of its sessions, such as 1% or 0.5%
    #[arg(long, value_name = "PERCENT", requires = "service", conflicts_with_all = ["sessions", "peer"],
          value_parser = per_mille, default_value = "100%")]
    sample: u16,
    /// The file to write; there must be none
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// End after this time, such as 30s or 10m
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// End when the file has so many MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    max_mib: u64,
    /// Replace the values of these fields before they leave the host
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    redact: Vec<String>,
    /// JSON, for programs: what came of it
    #[arg(long)]
    json: bool,
}

/// Reads a percentage as thousandths.
fn per_mille(text: &str) -> Result<u16, String> {
    let percent: f64 = text.trim_end_matches('%').trim().parse().map_err(|_| "a percentage is wanted")?;
    match (percent * 10.0).round() {
        n if (1.0..=1000.0).contains(&n) => Ok(n as u16),
        _ => Err("a percentage from 0.1% to 100% is wanted".into()),
    }
}

/// Recording under way.
struct Recorder {
    /// `None`: it has ended.
    file: Option<RecordingWriter>,
    path: PathBuf,
    bytes_max: u64,
    turns: u64,
    left_out: u64,
    /// Turns that were left out since the last one.
    gap: u64,
    has_head: bool,
    flushed: Instant,
    /// Set by a signal.
    ends: Arc<AtomicBool>,
    /// Pauses of the host since the signal: what ran before it has come behind the second.
    pauses: u32,
    json: bool,
}

impl Record {
    /// Runs the command.
    pub(super) fn run(self, dir: &Path) -> Result<(), CommandFailure> {
        let subject = match self.of.subject(self.sample)? {
            Some(subject) => subject,
            None if self.sessions.is_empty() => {
                return Err(CommandFailure::Usage(
                    "what shall be recorded? Name --session, --service or --peer".into(),
                ));
            }
            None => Subject::Sessions(self.sessions.clone()),
        };
        let failed = |e: io::Error| CommandFailure::Failed(format!("{}: {e}", self.output.display()));
        let file = RecordingWriter::create(&self.output).map_err(failed)?;
        let ends = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // A second signal ends the process at once.
            signal_hook::flag::register_conditional_default(signal, ends.clone()).map_err(failed)?;
            signal_hook::flag::register(signal, ends.clone()).map_err(failed)?;
        }
        let mut recorder = Recorder {
            file: Some(file),
            path: self.output.clone(),
            bytes_max: self.max_mib.saturating_mul(1 << 20),
            turns: 0,
            left_out: 0,
            gap: 0,
            has_head: false,
            flushed: Instant::now(),
            ends,
            pauses: 0,
            json: self.json,
        };
        let order = RecordOrder { redact: self.redact };
        let ended = follow(dir, &subject, self.time, Some(&order), |watched| recorder.take(watched));
        if !recorder.has_head {
            // Nothing was recorded: no file is better than an empty one.
            let _ = std::fs::remove_file(&self.output);
        } else {
            recorder.end(None)?;
        }
        Ok(ended?)
    }
}

impl Recorder {
    /// Takes a part of the watch. A file that can't be written ends the process.
    fn take(&mut self, watched: Watched) {
        let written = match watched {
            Watched::Reply(Reply::RecordHead(head)) if !self.has_head => {
                self.has_head = true;
                complain(&format!("recording to {}", self.path.display()));
                self.line(&head)
            }
            Watched::Reply(Reply::Record(mut turn)) => {
                turn.left_out = std::mem::take(&mut self.gap);
                self.turns += 1;
                self.line(&turn)
            }
            Watched::Reply(Reply::LeftOut(turns)) => {
                (self.gap, self.left_out) = (self.gap + turns, self.left_out + turns);
                Ok(())
            }
            Watched::WorkerEnded => {
                complain("greenroom: the worker has ended; turns are recorded again once a fresh one serves");
                Ok(())
            }
            Watched::Reply(_) => {
                self.pauses += u32::from(self.ends.load(Ordering::Relaxed));
                Ok(())
            }
        };
        let flushed = written.and_then(|()| match (&mut self.file, self.flushed.elapsed() >= FLUSH_EVERY) {
            (Some(file), true) => {
                self.flushed = Instant::now();
                file.flush()
            }
            _ => Ok(()),
        });
        let full = self.file.as_ref().is_some_and(|file| file.bytes() >= self.bytes_max);
        if flushed.is_ok() && !full && self.pauses < 2 {
            return;
        }
        // The answer of the host has no end: the process ends here, and the host sees that.
        let ended = match flushed {
            Err(e) => Err(CommandFailure::Failed(format!("{}: {e}", self.path.display()))),
            Ok(()) if full => self.end(Some("the file has its size (--max-mib)")),
            Ok(()) => self.end(None),
        };
        let code = match ended {
            Ok(()) => 0,
            Err(failure) => {
                complain(&format!("greenroom: {}", failure.text()));
                1
            }
        };
        std::process::exit(code);
    }

    /// Writes a line.
    fn line(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.line(line))
    }

    /// Ends the file, and says what is in it.
    fn end(&mut self, why: Option<&str>) -> Result<(), CommandFailure> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let failed = |e: io::Error| CommandFailure::Failed(format!("{}: {e}", self.path.display()));
        let bytes = file.finish().map_err(failed)?;
        if self.json {
            print_json(&serde_json::json!({
                "file": self.path, "turns": self.turns, "left_out": self.left_out, "bytes": bytes,
            }));
            return Ok(());
        }
        let left_out = match self.left_out {
            0 => String::new(),
            n => format!(", {n} left out (they came faster than they were read)"),
        };
        let why = why.map_or(String::new(), |why| format!("; {why}"));
        complain(&format!("{}: {} turns{left_out}, {bytes} bytes{why}", self.path.display(), self.turns));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::per_mille;

    #[test]
    fn percentages_are_read_as_thousandths() {
        assert_eq!([per_mille("1%"), per_mille("0.5%"), per_mille("100")], [Ok(10), Ok(5), Ok(1000)]);
        assert!(per_mille("0").is_err() && per_mille("101%").is_err() && per_mille("some").is_err());
    }
}
