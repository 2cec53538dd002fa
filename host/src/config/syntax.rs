//! Text of a configuration, and errors of TOML, as one line each: logs and answers to commands have
//! no pictures.

use crate::sys::regular_file;
use std::io::{self, Read};
use std::path::Path;

/// Most bytes of a configuration. A device would have no end.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Characters of the file's line that an error shows.
const SHOWN_MAX: usize = 60;

/// Reads the file. Never waits for the writer of a FIFO.
pub(super) fn text_of(path: &Path) -> io::Result<String> {
    let (file, _) = regular_file::open(path)?;
    let mut text = String::new();
    match file.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text)? as u64 {
        0..=TEXT_BYTES_MAX => Ok(text),
        _ => Err(io::Error::other(format!("it has more than {TEXT_BYTES_MAX} bytes"))),
    }
}

/// Tells an error with its place, and the line in the file.
pub(super) fn placed(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join("; ");
    let at = error.span().map(|span| span.start.min(text.len()));
    let Some((before, behind)) = at.and_then(|at| text.split_at_checked(at)) else {
        return format!("{}: {message}", path.display());
    };
    let (number, start) = (before.matches('\n').count() + 1, before.rfind('\n').map_or(0, |n| n + 1));
    let column = before[start..].chars().count() + 1;
    let line = [&before[start..], behind.lines().next().unwrap_or_default()].concat();
    let shown: String = line.trim().chars().take(SHOWN_MAX).collect();
    let shown = if shown.is_empty() { String::new() } else { format!(", in `{shown}`") };
    format!("{}: line {number}, column {column}: {message}{shown}", path.display())
}

#[cfg(test)]
mod tests {
    use crate::config::tests::read;

    #[test]
    fn an_error_of_syntax_or_type_has_its_place_and_one_line() {
        for (text, place, says) in [
            ("watch = true\n[service", "line 2, column 9: ", "in `[service`"),
            (
                "[service.a]\n  listen = 3\n",
                "line 2, column 12: invalid type: integer `3`",
                "in `listen = 3`",
            ),
            ("[limits]\nidle_ms = \"ä\" x\n", "line 2, column 15: ", "in `idle_ms = \"ä\" x`"),
            ("\nwotch = 1\n", "line 2, column 1: unknown field `wotch`", "in `wotch = 1`"),
            ("a = \"", "line 1, column 6: ", "in `a = \"`"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(&format!("/greenroom.toml: {place}")) && said.contains(says), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }
}
