//! Descriptors that a service manager gave to this process: systemd's socket activation.
//!
//! The manager binds sockets, and starts this process with them as descriptors from 3 on. Three
//! variables tell: `LISTEN_PID` for which process they are, `LISTEN_FDS` how many, and
//! `LISTEN_FDNAMES` their names. The variables are removed here, so no child takes the descriptors
//! for its own.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Descriptor from the manager.
#[derive(Debug)]
pub struct GivenDescriptor {
    /// The descriptor, closed on exec.
    pub fd: OwnedFd,
    /// Number that the manager gave it.
    pub number: RawFd,
    /// Name that the manager gave it; `unknown`: none.
    pub name: String,
}

/// Takes the descriptors, and removes the variables. None: no manager gave any, or they are for
/// another process. To be called first, before there is another thread or file. Fails on variables
/// that contradict each other or the descriptors.
pub fn take() -> Result<Vec<GivenDescriptor>, String> {
    let own = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    // SAFETY: there is no other thread that could read the environment.
    let given = unsafe { sd_notify::listen_fds_with_names_and_unset_env() };
    if !own {
        return Ok(Vec::new());
    }
    let given = given.map_err(|e| {
        format!("the descriptors of systemd (LISTEN_FDS, LISTEN_FDNAMES) can't be taken: {e}")
    })?;
    let take = |(number, name)| {
        // SAFETY: the descriptor is open, as its flags were set, and nothing here has opened or
        // taken it before.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        GivenDescriptor { fd, number, name }
    };
    Ok(given.map(take).collect())
}
