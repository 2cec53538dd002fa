//! Questions of a dialogue, and what is done once: each along the answers so far.

use crate::carried::stored_as_is;
use crate::dialogue::{Dialogue, How, Step};
use crate::fault::{ASKS, Fault};
use crate::talk::Entry;
use crate::turn::Turn;
use serde::Serialize;
use serde::de::DeserializeOwned;

impl<'t, S> Dialogue<'_, 't, S> {
    /// Asks a question of a name.
    pub(crate) fn question(&mut self, name: &str, prompt: &str, how: How) -> Step<String> {
        let Dialogue { turn, run } = self;
        run.pass_things();
        match run.record.answers.get(run.at) {
            Some(Entry::Ask(asked, answer)) if asked == name => {
                run.at += 1;
                return Ok(answer.clone());
            }
            Some(_) => {
                run.ask_anew(turn);
                return Err(waits());
            }
            None => {}
        }
        match run.record.asked.as_deref() {
            Some(asked) if asked == name => {
                let Some(answer) = run.answer.take() else { return Err(waits()) };
                run.end_hidden_line(turn);
                run.record.asked = None;
                run.record.answers.push(Entry::Ask(name.to_owned(), answer.clone()));
                run.at += 1;
                (run.live, run.live_from) = (true, run.at);
                Ok(answer)
            }
            Some(_) => {
                run.ask_anew(turn);
                Err(waits())
            }
            None => {
                match how {
                    // Between two hidden questions typing stays hidden.
                    How::Hidden if run.record.hidden => {}
                    How::Hidden => {
                        turn.hide_input(true);
                        run.record.hidden = true;
                    }
                    How::Line | How::Prompt => run.show_input(turn),
                }
                match how {
                    How::Line => turn.send_line(prompt),
                    How::Prompt | How::Hidden => turn.prompt(prompt),
                }
                run.record.asked = Some(name.to_owned());
                Err(waits())
            }
        }
    }

    /// Asks a question of a name until its answer can be read.
    pub(crate) fn question_until<T, E: AsRef<str>>(
        &mut self,
        name: &str,
        prompt: &str,
        mut read: impl FnMut(&str) -> Result<T, E>,
    ) -> Step<T> {
        loop {
            // What another build did once in front of it is no answer.
            self.run.pass_things();
            let is_new = self.run.at == self.run.record.answers.len();
            let answer = self.question(name, prompt, How::Prompt)?;
            match read(&answer) {
                Ok(value) => return Ok(value),
                Err(why) => {
                    self.run.at -= 1;
                    if !is_new {
                        // Another build reads answers otherwise.
                        self.run.ask_anew(self.turn);
                        return Err(waits());
                    }
                    self.run.record.answers.truncate(self.run.at);
                    self.run.live_from = self.run.at;
                    self.say(why.as_ref());
                }
            }
        }
    }

    /// Does something of a name once.
    pub(crate) fn thing<T: Serialize + DeserializeOwned>(
        &mut self,
        name: &str,
        does: impl FnOnce(&mut Turn<'t, S>) -> Result<T, Fault>,
    ) -> Step<T> {
        let Dialogue { turn, run } = self;
        let of_name = |entry: &Entry| matches!(entry, Entry::Once(of, _) if of == name);
        let at = run.at;
        if !run.record.answers.get(at).is_some_and(of_name) {
            let Some(entry) = run.take_thing(of_name) else {
                let value = does(turn)?;
                let bytes =
                    stored_as_is(&value).map_err(|e| Fault::new(format!("{name:?}: its value: {e}")))?;
                run.insert(Entry::Once(name.to_owned(), bytes));
                return Ok(value);
            };
            run.insert(entry);
        } else {
            run.at += 1;
        }
        let Some(Entry::Once(_, bytes)) = run.record.answers.get(at) else { return Err(waits()) };
        rmp_serde::from_slice(bytes).map_err(|e| {
            Fault::new(format!("{name:?} has a value of another type; give it another name: {e}"))
        })
    }
}

/// End of a run whose question waits for its answer.
pub(crate) fn waits() -> Fault {
    Fault::bare(ASKS, String::new())
}
