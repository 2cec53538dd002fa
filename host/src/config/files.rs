//! Files in settings: a table `{ read_file = "PATH" }` gets the content of the file.
//!
//! Files are read with the configuration, by whoever reads that, and cross with it to workers and
//! builds (`file_contents.rs`). So each generation has the content that it was built with. The
//! store holds each content once: see `worker/reload/held_files.rs`.

use crate::config::file_contents::FileContents;
use crate::config::{Config, is_text};
use crate::sys::regular_file;
use greenroom_state::settings_file::{FILES_BYTES_MAX, READ_FILE, SHA256, SettingsFile};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

impl Config {
    /// Reads the files that settings name, relative to `base`. Blocks for the disk. The error names
    /// key and file.
    pub(super) fn read_files(&mut self, base: &Path) -> Result<(), String> {
        self.files = FileContents::default();
        let (mut left, files) = (FILES_BYTES_MAX, &mut self.files);
        let mut read = |path: &str| {
            let SettingsFile { path, sha256, bytes } = read(&base.join(path), &mut left)?;
            files.insert(sha256.clone(), bytes.into());
            Ok([(READ_FILE, path), (SHA256, sha256)])
        };
        self.service.iter_mut().try_for_each(|(name, service)| {
            each_file(&format!("service.{name}.settings"), &mut service.settings, &mut read)
        })
    }

    /// Copy of this configuration with the files of its settings read again. Blocks for the disk.
    pub fn with_files_read_again(&self) -> Result<Config, String> {
        let mut config = self.clone();
        config.read_files(Path::new(""))?;
        Ok(config)
    }

    /// Paths of the files that the settings in a configuration file name, whether they are there or
    /// not; `None`: the file is none that can be read.
    pub fn files_named_in(path: &Path) -> Option<BTreeSet<PathBuf>> {
        let root: Table = std::fs::read_to_string(path).ok()?.parse().ok()?;
        let mut all = BTreeMap::new();
        for service in root.get("service").and_then(Value::as_table).into_iter().flat_map(|s| s.values()) {
            let settings = service.get("settings").and_then(Value::as_table);
            settings.into_iter().for_each(|settings| collect(settings, &mut all));
        }
        let base = path.parent().unwrap_or(Path::new(""));
        Some(all.into_keys().map(|file| base.join(file)).collect())
    }

    /// Paths of the files that settings name.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        self.hashes_of_files().into_keys().collect()
    }

    /// Paths of the files that settings name, each with the SHA-256 of what was read there.
    pub fn hashes_of_files(&self) -> BTreeMap<PathBuf, String> {
        let mut all = BTreeMap::new();
        self.service.values().for_each(|service| collect(&service.settings, &mut all));
        all
    }

    /// Copy of this configuration without what was read in the files of its settings.
    pub fn without_hashes(&self) -> Config {
        let mut config = Config { files: FileContents::default(), ..self.clone() };
        let mut blank = |path: &str| Ok([(READ_FILE, path.to_owned()), (SHA256, String::new())]);
        for service in config.service.values_mut() {
            // Fails only if a file can't be read, and none is.
            let _ = each_file("", &mut service.settings, &mut blank);
        }
        config
    }
}

/// Path of a table that stands for a file. A table that was read before has its hash, too.
fn path_of(table: &Table) -> Option<&str> {
    let is_file = table.len() == 1 || table.contains_key(SHA256);
    table.get(READ_FILE).filter(|_| is_file)?.as_str()
}

/// Reader of a file at a path: the entries of its table.
type ReadFile<'a> = dyn FnMut(&str) -> Result<[(&'static str, String); 2], String> + 'a;

/// Reads each file of a table whose name is `at`, at any depth.
fn each_file(at: &str, table: &mut Table, read: &mut ReadFile<'_>) -> Result<(), String> {
    if let Some(path) = path_of(table) {
        let entries = read(path).map_err(|why| format!("{at}: {why}"))?;
        *table = entries.into_iter().map(|(key, text)| (key.to_owned(), text.into())).collect();
        return Ok(());
    }
    table.iter_mut().try_for_each(|(key, value)| in_value(&format!("{at}.{key}"), value, read))
}

/// Reads each file of a value whose name is `at`.
fn in_value(at: &str, value: &mut Value, read: &mut ReadFile<'_>) -> Result<(), String> {
    match value {
        Value::Table(table) => each_file(at, table, read),
        Value::Array(items) => {
            items.iter_mut().enumerate().try_for_each(|(i, item)| in_value(&format!("{at}.{i}"), item, read))
        }
        _ => Ok(()),
    }
}

/// Collects the paths of a table's files, with their hashes.
fn collect(table: &Table, all: &mut BTreeMap<PathBuf, String>) {
    if let Some(path) = path_of(table) {
        let sha256 = table.get(SHA256).and_then(Value::as_str).unwrap_or_default();
        all.insert(path.into(), sha256.to_owned());
        return;
    }
    let mut values: Vec<_> = table.values().collect();
    while let Some(value) = values.pop() {
        match value {
            Value::Table(table) => collect(table, all),
            Value::Array(items) => values.extend(items),
            _ => {}
        }
    }
}

/// Reads a file, of at most as many bytes as are left for it and for the files behind it. A FIFO
/// or a device would block, or never end.
fn read(path: &Path, left: &mut usize) -> Result<SettingsFile, String> {
    let at = path.display();
    is_text(path)?;
    let (file, _) = regular_file::open(path).map_err(|e| match e.kind() {
        ErrorKind::Other => format!("{at} is not a file"),
        _ => format!("{at} can't be opened: {e}"),
    })?;
    let mut bytes = Vec::new();
    // One byte more shows that the file is longer.
    let read = file.take(*left as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| format!("{at} can't be read: {e}"))?;
    match left.checked_sub(bytes.len()) {
        Some(rest) => *left = rest,
        None => {
            return Err(format!(
                "with {at} the files of all settings have more than {FILES_BYTES_MAX} bytes"
            ));
        }
    }
    let sha256 = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    Ok(SettingsFile { path: at.to_string(), sha256, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_at_any_depth_and_refused_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        write("a", b"one");
        let file = dir.path().join("greenroom.toml");
        let config = |settings: &str| {
            std::fs::write(&file, format!("[service.s]\nsettings = {settings}\n")).unwrap();
            Config::read(&file)
        };
        let read =
            config("{ x = { read_file = \"a\" }, l = [{ read_file = \"a\" }], read_file = \"b\" }").unwrap();
        let json: serde_json::Value = serde_json::from_str(&read.settings()["s"]).unwrap();
        let path = dir.path().join("a");
        assert_eq!(json["x"][READ_FILE], path.to_str().unwrap());
        assert_eq!(json["x"].get("base64"), None);
        let filled_in = read.files.filled_in(&read.settings());
        let filled_in: serde_json::Value = serde_json::from_str(&filled_in["s"]).unwrap();
        assert_eq!(filled_in["x"]["base64"], "b25l");
        assert_eq!((&json["l"][0], &json[READ_FILE]), (&json["x"], &"b".into()));
        assert_eq!(read.files(), BTreeSet::from([path]));
        write("a", b"two");
        let again = read.with_files_read_again().unwrap();
        assert_eq!(read.changes(&again).1, ["service.s.settings.l", "service.s.settings.x.sha256"]);
        assert_eq!(read.without_hashes().changes(&again.without_hashes()), (Vec::new(), Vec::new()));
        write("long", &vec![0; FILES_BYTES_MAX]);
        for (settings, says) in [
            ("{ x = [{ y = { read_file = \"none\" } }] }", "service.s.settings.x.0.y: "),
            ("{ x = { read_file = \".\" } }", "is not a file"),
            ("{ x = { read_file = \"/dev/null\" } }", "/dev/null is not a file"),
            (
                "{ x = { read_file = \"a\" }, y = { read_file = \"long\" } }",
                "long the files of all settings have",
            ),
        ] {
            let said = config(settings).unwrap_err();
            assert!(said.contains(says) && said.contains("greenroom.toml: "), "{said}");
        }
    }
}
