//! Keys of a terminal, a byte each, without Return.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use signal_hook::consts::SIGCONT;
use signal_hook::iterator::Signals;
use std::io::{IsTerminal, Read, stdin};

/// Terminal that gives keys at once. Dropping it gives its former settings back.
pub(super) struct Keys {
    before: Termios,
}

impl Keys {
    /// Calls `tell` with each key, on a thread of its own. `None`: standard input is no terminal,
    /// or this process is not in its foreground.
    pub(super) fn listen(tell: impl Fn(u8) -> bool + Send + 'static) -> Option<Keys> {
        if !stdin().is_terminal() || !is_in_foreground() {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut now = before.clone();
        // Signals of the terminal stay: Ctrl-C ends the command.
        now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Now, &now).ok()?;
        let keys = Keys { before };
        // A shell gives its own settings to the terminal while this process is stopped.
        let mut resumed = Signals::new([SIGCONT]).ok()?;
        let again = move || {
            for _ in resumed.forever().filter(|_| is_in_foreground()) {
                let _ = tcsetattr(stdin(), OptionalActions::Now, &now);
            }
        };
        std::thread::Builder::new().name("terminal".into()).spawn(again).ok()?;
        let thread = std::thread::Builder::new().name("keys".into());
        let listens = move || {
            let mut key = [0];
            while stdin().lock().read(&mut key).is_ok_and(|n| n == 1) && tell(key[0]) {}
        };
        thread.spawn(listens).ok()?;
        Some(keys)
    }
}

/// Whether the terminal is this process's to set.
fn is_in_foreground() -> bool {
    tcgetpgrp(stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
