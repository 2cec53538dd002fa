//! Files in settings: the form in which handlers get them, and records hold them.
//!
//! A table with the one key [`READ_FILE`] in a configuration stands for a file. The host reads the
//! file, and adds hash and content. Records hold content apart from settings, under its hash.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

/// Key whose value is the path of a file.
pub const READ_FILE: &str = "read_file";
/// Key of the content's SHA-256, in hexadecimal.
pub const SHA256: &str = "sha256";
/// Key of the content, in base64.
pub const BASE64_CONTENT: &str = "base64";
/// Most bytes of all files of a configuration. The loop of the host takes contents in and out of
/// settings: each 64 KiB cost it some milliseconds at a reload.
pub const FILES_BYTES_MAX: usize = 64 * 1024;

/// File as settings hold it.
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
    /// Returns the entries of its table in settings.
    pub fn entries(&self) -> [(&'static str, String); 3] {
        let SettingsFile { path, sha256, bytes } = self;
        [(READ_FILE, path.clone()), (SHA256, sha256.clone()), (BASE64_CONTENT, BASE64.encode(bytes))]
    }

    /// Reads the three values of its table in settings. Fails on text that is no base64.
    pub fn from_values(path: String, sha256: String, base64: &str) -> Result<SettingsFile, String> {
        let bytes = BASE64.decode(base64).map_err(|e| format!("the content of {path} is no base64: {e}"))?;
        Ok(SettingsFile { path, sha256, bytes })
    }
}

/// Takes the content of all files out of settings, at any depth. `take` gets hash and content of
/// each. Costs O(settings).
pub fn take_contents(settings: &mut Value, take: &mut dyn FnMut(String, Vec<u8>)) {
    match settings {
        Value::Object(map) => match content_of(map) {
            Some((sha256, bytes)) => {
                map.remove(BASE64_CONTENT);
                take(sha256, bytes);
            }
            None => map.values_mut().for_each(|value| take_contents(value, take)),
        },
        Value::Array(items) => items.iter_mut().for_each(|value| take_contents(value, take)),
        _ => {}
    }
}

/// Puts the content of all files back. `get` has the content of a hash. A file whose content it has
/// not stays without, and its handler is told.
pub fn put_contents_back(settings: &mut Value, get: &dyn Fn(&str) -> Option<Vec<u8>>) {
    match settings {
        Value::Object(map) => {
            let named = map.contains_key(READ_FILE) && !map.contains_key(BASE64_CONTENT);
            match map.get(SHA256).and_then(Value::as_str).filter(|_| named && map.len() == 2).and_then(get) {
                Some(bytes) => _ = map.insert(BASE64_CONTENT.into(), BASE64.encode(bytes).into()),
                None => map.values_mut().for_each(|value| put_contents_back(value, get)),
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|value| put_contents_back(value, get)),
        _ => {}
    }
}

/// Hash and content of a table that is a file. `None`: it is none.
fn content_of(map: &Map<String, Value>) -> Option<(String, Vec<u8>)> {
    let text = |key: &str| map.get(key)?.as_str();
    let [_, sha256, base64] = [text(READ_FILE)?, text(SHA256)?, text(BASE64_CONTENT)?];
    Some((sha256.to_owned(), BASE64.decode(base64).ok()?)).filter(|_| map.len() == 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn contents_go_out_of_settings_and_come_back() {
        let file = SettingsFile { path: "/a".into(), sha256: "aa".into(), bytes: b"\0\xff".to_vec() };
        let table: Map<_, _> = file.entries().into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
        let whole = json!({"one": table, "list": [1, {"deep": table}], "read_file": "no file",
            "other": {"read_file": "x", "sha256": 5, "base64": "AA=="}});
        let (mut settings, mut contents) = (whole.clone(), BTreeMap::new());
        take_contents(&mut settings, &mut |hash, bytes| _ = contents.insert(hash, bytes));
        assert_eq!(contents, BTreeMap::from([("aa".into(), file.bytes.clone())]));
        assert_eq!(settings["one"], json!({"read_file": "/a", "sha256": "aa"}));
        assert_eq!(settings["other"], whole["other"]);
        let mut lacking = settings.clone();
        put_contents_back(&mut lacking, &|_| None);
        assert_eq!(lacking, settings);
        put_contents_back(&mut settings, &|hash| contents.get(hash).cloned());
        assert_eq!(settings, whole);
        let text = |key: &str| table[key].as_str().unwrap().to_owned();
        let read = SettingsFile::from_values(text(READ_FILE), text(SHA256), &text(BASE64_CONTENT));
        assert_eq!(read, Ok(file));
        assert!(SettingsFile::from_values("/a".into(), "aa".into(), "*").unwrap_err().contains("base64"));
    }
}
