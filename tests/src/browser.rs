//! Chromium, driven by `tests/clients/browser.py`: pages, keys and scripts.

use crate::{root, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Running browser. Dropping it ends it.
pub struct Browser {
    script: Child,
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    /// Starts Chromium without a window.
    pub fn start() -> Browser {
        let mut script = Command::new("python3");
        script.arg(root().join("tests/clients/browser.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().expect("python3");
        let answers = BufReader::new(script.stdout.take().expect("its output")).lines();
        Browser { orders: script.stdin.take(), script, answers }
    }

    /// Gives an order, and returns its answer. The script has a list of them.
    #[track_caller]
    pub fn order(&mut self, order: &str) -> Value {
        writeln!(self.orders.as_mut().expect("its input"), "{order}").expect("it reads");
        let answer = self.answers.next().expect("an answer").expect("text");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// Opens a page, and returns its number.
    pub fn open(&mut self, url: &str) -> usize {
        self.order(&format!("open {url}")).as_u64().expect("a number") as usize
    }

    /// Runs a script on a page.
    #[track_caller]
    pub fn run(&mut self, page: usize, script: &str) -> Value {
        self.order(&format!("run {page} {script}"))
    }

    /// Waits until a script has this value.
    #[track_caller]
    pub fn wait(&mut self, page: usize, script: &str, expected: &str) {
        let mut last = Value::Null;
        let what = format!("{script} to be {expected:?} on page {page}");
        wait_for(&what, || {
            last = self.run(page, script);
            (last == expected).then_some(())
        });
    }

    /// Presses keys, by their names.
    pub fn keys(&mut self, page: usize, names: &[&str]) {
        for name in names {
            self.order(&format!("key {page} {name}"));
        }
    }

    /// Types a text, wherever the focus is.
    pub fn types(&mut self, page: usize, text: &str) {
        self.order(&format!("type {page} {text}"));
    }

    /// Name of the element that has the focus.
    pub fn focus(&mut self, page: usize) -> Value {
        self.run(page, "document.activeElement.id")
    }

    /// Lowest contrast of texts with what is behind them. `texts` selects elements, `hinted` one
    /// with a placeholder.
    pub fn contrast(&mut self, page: usize, texts: &str, hinted: &str) -> f64 {
        let script = CONTRASTS.replace("TEXTS", texts).replace("HINTED", hinted);
        self.run(page, &script).as_f64().expect("a number")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The script ends Chromium.
        self.orders = None;
        let _ = self.script.wait();
    }
}

/// Script that finds the lowest contrast.
const CONTRASTS: &str = "(() => { \
    const c = document.createElement('canvas').getContext('2d', { willReadFrequently: true }); \
    const light = text => { c.fillStyle = text; c.fillRect(0, 0, 1, 1); \
        const v = [...c.getImageData(0, 0, 1, 1).data].slice(0, 3).map(n => n / 255) \
            .map(n => n <= .04045 ? n / 12.92 : ((n + .055) / 1.055) ** 2.4); \
        return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; }; \
    const back = e => { for (; e; e = e.parentElement) { const b = getComputedStyle(e).backgroundColor; \
        if (b !== 'rgba(0, 0, 0, 0)') return b; } return 'white'; }; \
    const of = (e, color) => { const [a, b] = [light(color), light(back(e))].sort((a, b) => b - a); \
        return (a + .05) / (b + .05); }; \
    const texts = [...document.querySelectorAll('TEXTS')]; \
    const all = texts.map(e => of(e, getComputedStyle(e).color)); \
    const hinted = document.querySelector('HINTED'); \
    all.push(of(hinted, getComputedStyle(hinted, '::placeholder').color)); \
    return Math.min(...all); })()";
