//! Keys of a terminal, a byte each, without Return.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use std::io::{IsTerminal, Read, stdin};

/// Terminal that gives keys at once. Dropping it gives its former settings back.
pub(super) struct Keys {
    before: Termios,
}

impl Keys {
    /// Calls `tell` with each key, on a thread of its own. `None`: standard input is no terminal,
    /// or this process is not in its foreground.
    pub(super) fn listen(tell: impl Fn(u8) -> bool + Send + 'static) -> Option<Keys> {
        let foreground = stdin().is_terminal()
            && tcgetpgrp(stdin()).is_ok_and(|group| group == rustix::process::getpgrp());
        if !foreground {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut now = before.clone();
        // Signals of the terminal stay: Ctrl-C ends the command.
        now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Now, &now).ok()?;
        let keys = Keys { before };
        let thread = std::thread::Builder::new().name("keys".into());
        let listens = move || {
            let mut key = [0];
            while stdin().lock().read(&mut key).is_ok_and(|n| n == 1) && tell(key[0]) {}
        };
        thread.spawn(listens).ok()?;
        Some(keys)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
