//! Start of the handshaker's process, and of one that only checks certificates.
//!
//! No other process of the host reads a key, so a check needs one of these, too. It ends once its
//! socket is closed.

use crate::config::tls::TlsSettings;
use crate::keeper::service_manager::forget;
use crate::keeper::spawn::Process;
use crate::protocol::handshaker::{FromHandshaker, ToHandshaker};
use crate::protocol::link::{Link, Received, pair};
use crate::sys::proc::own_binary;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Link to a handshaker.
pub(super) type HandshakerLink = Link<FromHandshaker, ToHandshaker>;

/// Seconds in which a check must have read all files: they may lie behind a network.
const CHECK_S: i64 = 10;

/// Starts a handshaker, and tells it its settings.
pub(super) fn start(settings: &TlsSettings) -> io::Result<(Process, HandshakerLink)> {
    // This binary, although the worker may have another one since: fields are only added.
    let binary = own_binary()?;
    let (ours, theirs) = pair()?;
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    let child = forget(&mut command)
        .arg0("greenroom")
        .arg("handshaker")
        .stdin(Stdio::from(theirs))
        .stdout(io::stderr().as_fd().try_clone_to_owned()?)
        // An interrupt from the terminal goes to the keeper alone.
        .process_group(0)
        .spawn()?;
    let process = Process::watch(child)?;
    let mut link = Link::new(ours);
    link.send(&ToHandshaker::Configure(settings.clone()));
    Ok((process, link))
}

/// Reads all certificates and keys of a configuration in a process of its own, which ends then.
/// Fails with the reasons of all services whose files cannot be used. Blocks, for 10 s at most.
pub fn check(settings: &TlsSettings) -> Result<(), String> {
    if settings.services.is_empty() {
        return Ok(());
    }
    let failed = |e: io::Error| format!("certificates can't be checked: {e}");
    let (mut process, mut link) = start(settings).map_err(failed)?;
    let checked = loop {
        match link.receive() {
            Ok(Received::Message(FromHandshaker::Configured(failing), _)) => break Ok(failing),
            Ok(Received::Message(..) | Received::Unknown(_)) => continue,
            Ok(Received::Closed) => break Err("certificates can't be checked: the check has died".into()),
            Ok(Received::Nothing) => {}
            Err(e) => break Err(failed(e)),
        }
        let most = Timespec { tv_sec: CHECK_S, tv_nsec: 0 };
        let readable = PollFd::from_borrowed_fd(link.fd(), PollFlags::IN);
        match poll(&mut [readable], Some(&most)) {
            Ok(0) => break Err(format!("certificates can't be checked: that takes more than {CHECK_S} s")),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => break Err(failed(e.into())),
        }
    };
    process.end();
    match checked? {
        failing if failing.is_empty() => Ok(()),
        failing => Err(failing.join("; ")),
    }
}
