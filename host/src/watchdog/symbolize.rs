//! Names of addresses: function, file and line.
//!
//! A child process, `greenroom symbolize`, reads the debug information. That takes tens of
//! megabytes, and a damaged file may crash its reader. The child gets addresses as JSON on standard
//! input, prints the places as JSON, and ends.
//!
//! Only addresses in private copies are looked up: the host's own frames say nothing about a
//! handler. Without debug information, the symbol table still gives the function.
//!
//! A failure costs the place in the log line and nothing else.

use crate::sys::proc::own_binary;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Longest time that the child may take. The watchdog looks at nothing else meanwhile.
const CHILD_MAX: Duration = Duration::from_secs(3);

/// Finds the innermost place in the handler's own code. Frames are return addresses, the innermost
/// first, and `copies` is the directory of the private copies. If no frame is in a copy, or the
/// child fails, the result is `None`. Blocks for at most [`CHILD_MAX`].
///
/// A place whose file is known and not of the toolchain or the registry comes first. Without one, a
/// function that is not of the standard library is taken.
pub(super) fn place_of(frames: &[usize], copies: &Path) -> Option<Place> {
    let addresses = frames.iter().enumerate().filter_map(|(i, &at)| {
        let (module, offset) = module_of(at)?;
        // The address of a caller is behind its call, which may be on the line before. The
        // innermost one is where the thread is.
        module.starts_with(copies).then(|| Address { module, offset: offset - u64::from(i > 0) as usize })
    });
    let addresses: Vec<_> = addresses.collect();
    let places = in_child(&addresses).inspect_err(|e| tracing::debug!("symbolize: {e}")).ok()?;
    let own = |p: &&Place| !p.file.is_empty() && !p.file.contains("/rustc/") && !p.file.contains("/.cargo/");
    let named = |p: &&Place| !["std::", "core::", "alloc::", "<"].iter().any(|s| p.function.starts_with(s));
    places.iter().find(own).or_else(|| places.iter().find(named)).cloned()
}

/// Address in a mapped file, on its way to the child.
#[derive(Debug, Serialize, Deserialize)]
struct Address {
    /// The mapped file.
    module: PathBuf,
    /// Distance from the first mapping of the file: the address in the file's own numbers.
    offset: usize,
}

/// Place in the source, from the child.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Place {
    /// Function, with its path; empty: unknown.
    pub(super) function: String,
    /// File; empty: built without debug information.
    pub(super) file: String,
    /// Line in it, from 1; 0: unknown.
    pub(super) line: u32,
}

impl fmt::Display for Place {
    /// Writes function, file and line; what is unknown is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = if self.function.is_empty() { "?" } else { &self.function };
        match self.file.as_str() {
            "" => write!(f, "{function}"),
            file => write!(f, "{function} ({file}:{})", self.line),
        }
    }
}

/// Finds the file that is mapped at an address, and the address in that file. `None`: no file is
/// mapped there. Reads `/proc/self/maps`, O(mappings) for each address.
fn module_of(at: usize) -> Option<(PathBuf, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mapped: Vec<_> = maps.lines().filter_map(mapping).collect();
    let (_, _, path) = mapped.iter().find(|(begin, end, _)| (*begin..*end).contains(&at))?;
    let (base, _, _) = mapped.iter().find(|(_, _, p)| p == path)?;
    Some((PathBuf::from(path), at - base))
}

/// Reads a line of `/proc/self/maps`: begin, end and path. The path is the rest of the line, behind
/// the fifth word and spaces; it may hold spaces. `None`: nothing is mapped by a path.
fn mapping(line: &str) -> Option<(usize, usize, &str)> {
    let mut words = line.splitn(6, ' ');
    let (begin, end) = words.next()?.split_once('-')?;
    let path = words.nth(4)?.trim_start();
    let address = |hex| usize::from_str_radix(hex, 16).ok();
    Some((address(begin)?, address(end)?, path)).filter(|_| !path.is_empty())
}

/// Asks a child for the places of addresses. Waits for its answer for at most [`CHILD_MAX`], then
/// kills the child. Inlined functions make several places of one address.
fn in_child(addresses: &[Address]) -> io::Result<Vec<Place>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let binary = own_binary()?;
    let mut child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg("symbolize")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(addresses)?)?;
    }
    let (sender, answer) = channel();
    // A thread reads, since a read has no time limit and a slow child must not stop the watchdog.
    // The end of the child ends the thread. If there is no thread, the sender is gone at once.
    if let Some(mut out) = child.stdout.take() {
        let read = move || {
            let mut bytes = Vec::new();
            let _ = out.read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        };
        if let Err(e) = std::thread::Builder::new().name("symbolizer".into()).spawn(read) {
            tracing::debug!("the place of a callback can't be found: {e}");
        }
    }
    let answer = answer.recv_timeout(CHILD_MAX);
    let _ = child.kill();
    child.wait()?;
    Ok(serde_json::from_slice(&answer.map_err(io::Error::other)?)?)
}

/// Runs the child: reads addresses from standard input, and prints their places, inlined functions
/// included. A file without debug information and symbols yields none. Fails if the input is not
/// that of the watchdog.
pub fn run() -> Result<(), String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|e| e.to_string())?;
    let addresses: Vec<Address> =
        serde_json::from_str(&text).map_err(|e| format!("this command is the host's own: {e}"))?;
    let mut places = Vec::new();
    for Address { module, offset } in &addresses {
        let Ok(loader) = addr2line::Loader::new(module) else { continue };
        // Debug information of line tables alone names no function into which nothing is inlined.
        let symbol = || loader.find_symbol(*offset as u64);
        let symbol = || symbol().map(|s| addr2line::demangle_auto(s.into(), None).into_owned());
        let before = places.len();
        if let Ok(mut frames) = loader.find_frames(*offset as u64) {
            while let Ok(Some(frame)) = frames.next() {
                let function = frame.function.as_ref().and_then(|f| Some(f.demangle().ok()?.into_owned()));
                let at = frame.location.as_ref();
                places.push(Place {
                    function: function.or_else(symbol).unwrap_or_default(),
                    file: at.and_then(|l| l.file).unwrap_or_default().to_owned(),
                    line: at.and_then(|l| l.line).unwrap_or_default(),
                });
            }
        }
        if places.len() == before
            && let Some(function) = symbol()
        {
            places.push(Place { function, file: String::new(), line: 0 });
        }
    }
    let json = serde_json::to_string(&places).map_err(|e| e.to_string())?;
    println!("{json}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_path_may_hold_spaces() {
        let line = "7f00-7fff r-xp 00001000 08:01 1234                       /opt/my handlers/lib  x.so";
        assert_eq!(mapping(line), Some((0x7f00, 0x7fff, "/opt/my handlers/lib  x.so")));
        assert_eq!(mapping("7f00-7fff rw-p 00000000 00:00 0 "), None);
        assert_eq!(mapping("7f00-7fff rw-p 00000000 00:00 0"), None);
    }
}
