//! Token of the observer, in a file.

use crate::sys::regular_file;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Shortest token, in bytes: a shorter one could be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// Reads the token in a file. The error names the file.
pub fn read_token(path: &Path) -> Result<String, String> {
    let failed = |e: io::Error| format!("{}: {e}", path.display());
    let (file, meta) = regular_file::open(path).map_err(failed)?;
    if meta.mode() & 0o007 != 0 {
        let mode = meta.mode() & 0o777;
        return Err(format!("{}: others may read the token (mode {mode:o}); chmod 600 it", path.display()));
    }
    let mut text = String::new();
    file.take(TOKEN_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    let token = text.trim();
    let is_visible = token.bytes().all(|b| b.is_ascii_graphic());
    match token.len() {
        TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX if is_visible => Ok(token.to_owned()),
        _ => Err(format!(
            "{}: a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible characters of ASCII, on one line",
            path.display()
        )),
    }
}
