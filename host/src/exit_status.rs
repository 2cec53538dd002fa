//! Exit statuses in words.
//!
//! The words reach operators: in the log, in `greenroom status`, and in the report of a refused
//! candidate. The second result of [`how`] is evidence for the verdict on a build: a process
//! that was killed from outside blames nobody.

use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Tells how a process ended, in words, and whether it caused its end itself.
///
/// Signals that the kernel raises for what code does are the process's own doing, as `abort` is.
/// All others come from outside, such as SIGKILL or a SIGHUP of a closed terminal. An exit with any
/// code is the process's own doing, too: the handler or the host called `exit`.
pub fn how(status: ExitStatus) -> (String, bool) {
    match status.signal() {
        Some(n) => (signal_name(n), is_raised_by_code(n)),
        None => (format!("ended the process (exit code {})", status.code().unwrap_or_default()), true),
    }
}

/// Whether a signal tells of what the code did.
fn is_raised_by_code(n: i32) -> bool {
    let raised = [
        Signal::SEGV,
        Signal::BUS,
        Signal::ABORT,
        Signal::ILL,
        Signal::FPE,
        Signal::SYS,
        Signal::TRAP,
        Signal::XCPU,
        Signal::XFSZ,
    ];
    Signal::from_named_raw(n).is_some_and(|signal| raised.contains(&signal))
}

/// Name of a signal, with words for the signals that faults raise.
pub fn signal_name(n: i32) -> String {
    match Signal::from_named_raw(n) {
        Some(Signal::SEGV) => "segmentation fault (SIGSEGV)".into(),
        Some(Signal::BUS) => "bus error (SIGBUS)".into(),
        Some(Signal::ABORT) => "abort (SIGABRT)".into(),
        Some(Signal::ILL) => "illegal instruction (SIGILL)".into(),
        Some(Signal::FPE) => "arithmetic fault (SIGFPE)".into(),
        Some(Signal::KILL) => "killed (SIGKILL)".into(),
        _ => signal_hook::low_level::signal_name(n).map_or_else(|| format!("signal {n}"), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signal_that_code_raises_is_its_own_doing() {
        let own = |signal: i32| how(ExitStatus::from_raw(signal)).1;
        assert!([4, 5, 6, 7, 8, 11, 31].into_iter().all(own));
        // SIGHUP, SIGUSR1, SIGKILL, SIGUSR2, SIGALRM, SIGTERM, a real-time signal.
        assert!(![1, 10, 9, 12, 14, 15, 40].into_iter().any(own));
        assert!(own(3 << 8), "an exit code");
    }
}
