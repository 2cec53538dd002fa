//! Printing: tables, JSON, and failures with their exit codes.
//!
//! Data goes to standard output, messages to standard error. Exit codes: 0 done, 1 refused or
//! failed, 2 usage, 3 no host answers.

use crate::admin::client::CallError;
use std::io::Write;
use std::process::ExitCode;

/// A failed command.
pub(super) enum Failure {
    /// Refused or failed: 1. An empty text: the command has printed why.
    Failed(String),
    /// Used wrongly: 2.
    Usage(String),
    /// No host answers: 3.
    NoHost(String),
}

impl From<CallError> for Failure {
    fn from(e: CallError) -> Failure {
        match e {
            CallError::NoHost(text) => Failure::NoHost(text),
            CallError::Failed(text) | CallError::BrokenOff(text) => Failure::Failed(text),
        }
    }
}

/// Prints why a command failed, if it did, and returns the exit code.
pub(super) fn exit_code(result: Result<(), Failure>) -> ExitCode {
    let (text, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(text)) => (text, 1),
        Err(Failure::Usage(text)) => (text, 2),
        Err(Failure::NoHost(text)) => (text, 3),
    };
    if !text.is_empty() {
        eprintln!("greenroom: {text}");
    }
    ExitCode::from(code)
}

/// Prints a value as JSON, on one line.
pub(super) fn print_json(value: &impl serde::Serialize) {
    print_text(&(serde_json::to_string(value).unwrap_or_default() + "\n"));
}

/// Prints to standard output. A reader that is gone (`| head`) ends the process, with exit code 0.
pub(super) fn print_text(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Makes a table without lines.
pub(super) fn table(head: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head.to_vec());
    table
}
