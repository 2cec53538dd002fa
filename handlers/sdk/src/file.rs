//! Files in settings: configuration that is a file of its own, such as a zone or a list of users.

use greenroom_state::settings_file::SettingsFile;
use serde::Deserialize;

/// File that an operator names in the settings: `zone = { read_file = "example.zone" }`.
///
/// The host reads it, and holds what it read with the build: a rollback brings the content before
/// back, and a fresh process never reads the path. When the file changes, the host loads the build
/// anew with the new content, as for any change of settings. An error of
/// [`Handler::new`](crate::Handler::new) refuses that, and the old content goes on: name the line
/// that is wrong.
///
/// ```
/// use greenroom_handler::{File, Handler, handler};
///
/// #[derive(serde::Deserialize)]
/// struct Config {
///     /// In the host's file: `users = { read_file = "users.txt" }`.
///     users: File,
/// }
///
/// struct Door {
///     users: Vec<String>,
/// }
///
/// #[handler]
/// impl Handler for Door {
///     const SERVICE: &'static str = "door";
///     type Config = Config;
///     fn new(Config { users: file }: Config) -> Result<Door, String> {
///         let mut users = Vec::new();
///         for (line, number) in file.text()?.lines().zip(1..) {
///             let Some((name, _)) = line.split_once(':') else {
///                 return Err(format!("{}:{number}: no colon", file.path()));
///             };
///             users.push(name.to_owned());
///         }
///         Ok(Door { users })
///     }
/// }
///
/// let good = File::new("users.txt", "ann:1\nbob:2\n", "0f3a");
/// assert_eq!((good.bytes().len(), good.hash()), (12, "0f3a"));
/// assert_eq!(Door::new(Config { users: good }).unwrap().users, ["ann", "bob"]);
/// let bad = Config { users: File::new("users.txt", "ann:1\nbob\n", "") };
/// assert_eq!(Door::new(bad).err().unwrap(), "users.txt:2: no colon");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Held")]
pub struct File {
    path: String,
    bytes: Vec<u8>,
    hash: String,
}

impl File {
    /// Makes a file for tests of a handler. `hash` is what [`File::hash`] returns.
    pub fn new(path: impl Into<String>, bytes: impl Into<Vec<u8>>, hash: impl Into<String>) -> File {
        File { path: path.into(), bytes: bytes.into(), hash: hash.into() }
    }

    /// Path from which the host has read it, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Content. All files of a host have 1 MiB at most.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Content as text. The error names the file.
    pub fn text(&self) -> Result<&str, String> {
        std::str::from_utf8(&self.bytes).map_err(|e| format!("{} is no UTF-8: {e}", self.path))
    }

    /// SHA-256 of the content, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

/// Table of a file in the settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a file, written { read_file = \"PATH\" }")]
struct Held {
    read_file: String,
    sha256: Option<String>,
    base64: Option<String>,
}

impl TryFrom<Held> for File {
    type Error = String;

    fn try_from(held: Held) -> Result<File, String> {
        let Held { read_file, sha256: Some(sha256), base64: Some(base64) } = held else {
            return Err(format!("the host has not read {}: it is too old for that", held.read_file));
        };
        let SettingsFile { path, sha256, bytes } = SettingsFile::from_values(read_file, sha256, &base64)?;
        Ok(File { path, bytes, hash: sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn a_file_is_read_from_settings_or_refused_in_words() {
        let held = json!({"read_file": "/z", "sha256": "ab", "base64": "b25l"});
        let file: File = from_value(held).unwrap();
        assert_eq!(file, File::new("/z", "one", "ab"));
        assert_eq!((file.text(), file.hash()), (Ok("one"), "ab"));
        assert!(File::new("/z", [0xff], "").text().unwrap_err().contains("/z is no UTF-8"));
        for (wrong, says) in [
            (json!("/z"), "{ read_file = \"PATH\" }"),
            (json!({"read_file": "/z"}), "it is too old for that"),
            (json!({"read_file": "/z", "sha256": "ab", "base64": "*"}), "/z is no base64"),
        ] {
            let said = from_value::<File>(wrong).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }
}
