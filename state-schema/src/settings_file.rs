//! Files in settings: the form in which handlers get them, and the host holds them.
//!
//! A table with the one key [`READ_FILE`] in a configuration stands for a file. The host reads the
//! file and adds its hash. It holds the content apart from settings, and puts it into the table for
//! the handler alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Key whose value is the path of a file.
pub const READ_FILE: &str = "read_file";
/// Key of the content's SHA-256, in hexadecimal.
pub const SHA256: &str = "sha256";
/// Key of the content, in base64.
pub const BASE64_CONTENT: &str = "base64";
/// Most bytes of all files of a configuration. The loop of the host reads a proposal with all
/// contents, and writes those that are new to its store: some milliseconds for each MiB.
pub const FILES_BYTES_MAX: usize = 1 << 20;

/// File of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsFile {
    /// Path, as the host has read it.
    pub path: String,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// Content.
    pub bytes: Vec<u8>,
}

impl SettingsFile {
    /// Reads the three values of its table in settings, as a handler gets it. Fails on text that is
    /// no base64.
    pub fn from_values(path: String, sha256: String, base64: &str) -> Result<SettingsFile, String> {
        let bytes = BASE64.decode(base64).map_err(|e| format!("the content of {path} is no base64: {e}"))?;
        Ok(SettingsFile { path, sha256, bytes })
    }
}

/// Calls `each` with the hash of each file that settings name without its content, at any depth.
pub fn each_hash(settings: &Value, each: &mut dyn FnMut(&str)) {
    match settings {
        Value::Object(map) => match hash_of(map) {
            Some(sha256) => each(sha256),
            None => map.values().for_each(|value| each_hash(value, each)),
        },
        Value::Array(items) => items.iter().for_each(|value| each_hash(value, each)),
        _ => {}
    }
}

/// Puts the content of all files into settings. `get` has the content of a hash. A file whose
/// content it has not stays without, and its handler is told. Costs O(settings + contents).
pub fn put_contents_back(settings: &mut Value, get: &dyn Fn(&str) -> Option<Arc<[u8]>>) {
    match settings {
        Value::Object(map) => match hash_of(map).and_then(get) {
            Some(bytes) => _ = map.insert(BASE64_CONTENT.into(), BASE64.encode(bytes).into()),
            None => map.values_mut().for_each(|value| put_contents_back(value, get)),
        },
        Value::Array(items) => items.iter_mut().for_each(|value| put_contents_back(value, get)),
        _ => {}
    }
}

/// Hash of a table that is a file without its content. `None`: it is none.
fn hash_of(map: &Map<String, Value>) -> Option<&str> {
    let [_, sha256] = [READ_FILE, SHA256].map(|key| map.get(key).and_then(Value::as_str));
    sha256.filter(|_| map.len() == 2 && map.get(READ_FILE).is_some_and(Value::is_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn contents_come_into_settings() {
        let file = SettingsFile { path: "/a".into(), sha256: "aa".into(), bytes: b"\0\xff".to_vec() };
        let whole = json!({"read_file": "/a", "sha256": "aa", "base64": "AP8="});
        let table = json!({"read_file": "/a", "sha256": "aa"});
        let no_files = json!([{"read_file": "x", "sha256": 5}, {"read_file": 5, "sha256": "aa"}]);
        let mut settings = json!({"one": table, "list": [1, {"deep": table}], "read_file": "no file",
            "other": no_files, "unknown": {"read_file": "/b", "sha256": "bb"}});
        let mut hashes = Vec::new();
        each_hash(&settings, &mut |sha256| hashes.push(sha256.to_owned()));
        assert_eq!(hashes, ["aa", "aa", "bb"]);
        let lacking = settings.clone();
        put_contents_back(&mut settings, &|_| None);
        assert_eq!(settings, lacking);
        for _ in 0..2 {
            put_contents_back(&mut settings, &|sha256| (sha256 == "aa").then(|| file.bytes.clone().into()));
            assert_eq!((&settings["one"], &settings["list"][1]["deep"]), (&whole, &whole));
            assert_eq!((&settings["other"], &settings["unknown"]), (&no_files, &lacking["unknown"]));
        }
        let read = SettingsFile::from_values("/a".into(), "aa".into(), "AP8=");
        assert_eq!(read, Ok(file));
        assert!(SettingsFile::from_values("/a".into(), "aa".into(), "*").unwrap_err().contains("base64"));
    }
}
