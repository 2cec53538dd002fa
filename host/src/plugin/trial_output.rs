//! Output of a trial's process: lines of its answer, and its last words.
//!
//! Standard output carries lines that begin with the task's nonce: progress, and at last the
//! report. All other output is the candidate's. It is skipped without being kept, except for the
//! last line on standard error, which a refusal repeats.
//!
//! Each stream is read by a thread of its own, for at most [`OUTPUT_MAX`] bytes. Then it is closed,
//! and the candidate's next print fails.

use std::io::{self, BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// Most bytes of a stream that are read.
pub(super) const OUTPUT_MAX: u64 = 64 << 20;
/// Most characters of its last words that a refusal repeats.
const WORDS_MAX: usize = 200;

/// Reads both outputs of a child, each on a thread of its own, which ends with the output. Both
/// must be read all the time: a candidate that prints into a full pipe would hang. Fails if there
/// is no thread; the child runs on, and the caller kills it.
pub(super) fn listen(child: &mut Child, nonce: String, sender: Sender<Said>) -> io::Result<()> {
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    if let Some(out) = child.stdout.take() {
        let sender = sender.clone();
        thread("trial output").spawn(move || {
            let mut out = BufReader::new(out.take(OUTPUT_MAX));
            answers(&mut out, &nonce, |line| {
                let said = match line.strip_prefix(':').and_then(|l| l.split_once('/')) {
                    Some((done, total)) => {
                        Said::Progress(done.parse().unwrap_or(0), total.parse().unwrap_or(0))
                    }
                    None => Said::Found(line),
                };
                let _ = sender.send(said);
            });
            let _ = sender.send(Said::Ended { flooded: out.get_ref().limit() == 0 });
        })?;
    }
    if let Some(err) = child.stderr.take() {
        thread("trial errors").spawn(move || {
            let _ = sender.send(Said::LastWords(last_words(err.take(OUTPUT_MAX))));
        })?;
    }
    Ok(())
}

/// Passes on what follows the nonce, of each line that begins with it. Keeps no other line: a
/// candidate may print without a line's end, and bytes that are no text.
fn answers(mut from: impl BufRead, nonce: &str, mut pass: impl FnMut(String)) {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut from).take(nonce.len() as u64).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            return;
        }
        let whole = line.ends_with(b"\n");
        if line != nonce.as_bytes() {
            if !whole && from.skip_until(b'\n').is_err() {
                return;
            }
            continue;
        }
        line.clear();
        let _ = from.read_until(b'\n', &mut line);
        pass(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned());
    }
}

/// Messages of the threads that read a child's outputs.
pub(super) enum Said {
    /// Progress: items done, and of how many.
    Progress(u64, u64),
    /// Report, as JSON.
    Found(String),
    /// End of standard output, which was closed here if it `flooded`.
    Ended {
        /// [`OUTPUT_MAX`] bytes were read.
        flooded: bool,
    },
    /// Last line on standard error, which has ended.
    LastWords(String),
}

/// TrialAnswer of a child, as far as it has come.
#[derive(Default)]
pub(super) struct TrialAnswer {
    /// Last report, as JSON. There is one at most, unless the candidate knows the nonce.
    pub(super) found: Option<String>,
    /// Whether the rehearsal has begun.
    pub(super) rehearsing: bool,
    /// Last line on standard error.
    pub(super) words: String,
    /// Whether more was printed than is read.
    pub(super) flooded: bool,
    /// Outputs that have ended, of two.
    ended: u32,
}

impl TrialAnswer {
    /// Takes messages until both outputs have ended, or until a time. Calls `tell` for
    /// progress.
    pub(super) fn hear(&mut self, said: &Receiver<Said>, until: Instant, tell: &mut impl FnMut(u64, u64)) {
        while self.ended < 2 {
            match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Said::Progress(done, total)) => {
                    self.rehearsing = true;
                    if done > 0 {
                        tell(done, total);
                    }
                }
                Ok(Said::Found(found)) => self.found = Some(found),
                Ok(Said::Ended { flooded }) => {
                    self.flooded = flooded;
                    self.ended += 1;
                }
                Ok(Said::LastWords(words)) => {
                    self.words = words;
                    self.ended += 1;
                }
                Err(_) => return,
            }
        }
        // Both outputs have ended and the process has not: a short sleep keeps the caller from
        // spinning.
        if self.found.is_none() {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(2)));
        }
    }
}

/// Returns the last line that says something, without control characters and at most
/// [`WORDS_MAX`] long. Keeps no more than two pieces in memory, however much is printed.
fn last_words(mut from: impl Read) -> String {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut piece) {
        kept.extend_from_slice(&piece[..n]);
        let too_many = kept.len().saturating_sub(piece.len());
        kept.drain(..too_many);
    }
    let text = String::from_utf8_lossy(&kept);
    // Lines that begin with `note: ` are hints of Rust's panic handler, such as the one on
    // backtraces.
    let says = |l: &&str| !l.is_empty() && !l.starts_with("note: ");
    let line = text.lines().rev().map(str::trim).find(says).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}
