//! Contents of the files that settings name.
//!
//! Settings hold path and hash of a file. Its content stands beside them, shared by all copies in a
//! process. Messages and records are therefore small, and settings are compared by hashes. Settings
//! get the contents at one place: right before a handler is built, off the loop.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use greenroom_state::settings_file::{READ_FILE, each_hash, put_contents_back};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Contents of files, by their SHA-256 in hexadecimal.
#[derive(Debug, Clone, Default)]
pub struct FileContents(BTreeMap<String, Arc<[u8]>>);

impl FileContents {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a content under its hash.
    pub fn insert(&mut self, sha256: String, bytes: Arc<[u8]>) {
        self.0.insert(sha256, bytes);
    }

    /// Content of a hash.
    pub fn get(&self, sha256: &str) -> Option<&Arc<[u8]>> {
        self.0.get(sha256)
    }

    /// Hashes and contents, in the order of the hashes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        self.0.iter().map(|(sha256, bytes)| (sha256.as_str(), bytes))
    }

    /// Contents that some services' settings need, as far as they are here. O(settings).
    pub fn needed_by(&self, settings: &BTreeMap<String, String>) -> FileContents {
        let mut needed = FileContents::default();
        for sha256 in hashes(settings) {
            if let Some(bytes) = self.get(&sha256) {
                needed.insert(sha256, bytes.clone());
            }
        }
        needed
    }

    /// Settings with the contents of their files, in the form that handlers get. Costs
    /// O(settings + contents).
    pub fn filled_in(&self, settings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let filled_in = |json: &String| {
            let Some(mut settings) = with_files(json) else { return json.clone() };
            put_contents_back(&mut settings, &|sha256| self.get(sha256).cloned());
            settings.to_string()
        };
        settings.iter().map(|(service, json)| (service.clone(), filled_in(json))).collect()
    }
}

/// Hashes of the files that some services' settings name. O(settings).
pub fn hashes(settings: &BTreeMap<String, String>) -> Vec<String> {
    let mut all = Vec::new();
    for settings in settings.values().filter_map(|json| with_files(json)) {
        each_hash(&settings, &mut |sha256| all.push(sha256.to_owned()));
    }
    all
}

/// Settings in JSON that may name a file. Others are not even parsed.
fn with_files(json: &str) -> Option<serde_json::Value> {
    json.contains(READ_FILE).then(|| serde_json::from_str(json).ok())?
}

/// Equal hashes are equal contents.
impl PartialEq for FileContents {
    fn eq(&self, other: &FileContents) -> bool {
        self.0.keys().eq(other.0.keys())
    }
}

impl Serialize for FileContents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(sha256, bytes)| (sha256, BASE64.encode(bytes))))
    }
}

impl<'de> Deserialize<'de> for FileContents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FileContents, D::Error> {
        let read = |(sha256, text): (String, String)| match BASE64.decode(text) {
            Ok(bytes) => Ok((sha256, bytes.into())),
            Err(e) => Err(serde::de::Error::custom(format!("the file with hash {sha256} is no base64: {e}"))),
        };
        let all = BTreeMap::<String, String>::deserialize(deserializer)?;
        all.into_iter().map(read).collect::<Result<_, _>>().map(FileContents)
    }
}
