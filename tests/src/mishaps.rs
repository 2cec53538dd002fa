//! Mishaps of ordinary life, done to a live host from outside.
//!
//! | mishap | as it comes in life |
//! |---|---|
//! | full descriptor table | a library that opens files and closes none |
//! | no memory | a limit of the system, or a turn that takes all |
//! | cleaned directory | a cleaner of temporary files |
//! | stopped process | a debugger, a laptop's lid, a full machine |
//! | blocked log | a pager, a stopped terminal |

use crate::host::Host;
use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Sets the soft limit of a process, and returns the one before. `None`: the process is gone.
pub fn limit(pid: i32, resource: libc::__rlimit_resource_t, value: u64) -> Option<u64> {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: only `before` is written.
    let read = unsafe { libc::prlimit(pid, resource, std::ptr::null(), &mut before) };
    let wanted = libc::rlimit { rlim_cur: value, ..before };
    // SAFETY: the limits are read, and nothing is written.
    let set = unsafe { libc::prlimit(pid, resource, &wanted, std::ptr::null_mut()) };
    (read == 0 && set == 0).then_some(before.rlim_cur)
}

/// Stops a process for a while. One that is gone is left alone.
pub fn stop(pid: i32, time: Duration) {
    // SAFETY: kill has no preconditions.
    if unsafe { libc::kill(pid, libc::SIGSTOP) } == 0 {
        std::thread::sleep(time);
        // SAFETY: as above. A process that was stopped and killed is waited for by its parent.
        unsafe { libc::kill(pid, libc::SIGCONT) };
    }
}

/// Lets a process open no more files for a while.
pub fn fill_descriptor_table(pid: i32, time: Duration) {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) as u64;
    if let Some(before) = limit(pid, libc::RLIMIT_NOFILE, open) {
        std::thread::sleep(time);
        limit(pid, libc::RLIMIT_NOFILE, before);
    }
}

/// Lets a process have no more memory, until it ends.
pub fn take_memory(pid: i32) {
    limit(pid, libc::RLIMIT_AS, 1);
}

/// Deletes the private copies of a host, or their directory with them.
pub fn clean_copies(host: &Host, whole: bool) {
    let copies = host.runtime().join("copies");
    if whole {
        // The host may write a copy meanwhile, which leaves the directory there.
        let _ = std::fs::remove_dir_all(copies);
    } else {
        host.copies().iter().for_each(|copy| drop(std::fs::remove_file(copy)));
    }
}

/// Log of a host through a pipe whose reader can be held up.
pub struct LogReader {
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl LogReader {
    /// Copies what comes by a pipe to a file, on a thread that ends with the pipe.
    pub fn start(mut pipe: PipeReader, to: &Path) -> LogReader {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let (shared, mut file) = (gate.clone(), File::create(to).expect("a log"));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            loop {
                let (blocked, changed) = &*shared;
                let blocked = blocked.lock().expect("no panic");
                drop(changed.wait_while(blocked, |blocked| *blocked).expect("no panic"));
                match pipe.read(&mut piece) {
                    Ok(0) | Err(_) => return,
                    Ok(n) => file.write_all(&piece[..n]).expect("room for a log"),
                }
            }
        });
        LogReader { gate }
    }

    /// Holds the reader up, or lets it go on.
    pub fn block(&self, blocked: bool) {
        *self.gate.0.lock().expect("no panic") = blocked;
        self.gate.1.notify_all();
    }
}
