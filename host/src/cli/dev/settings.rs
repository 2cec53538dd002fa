//! Configuration of the served folder: the files that its settings name, and the places in it that
//! a refusal is about.

use crate::cli::dev::project::Project;
use crate::config::Config;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Configuration of a folder, which need not be there.
#[derive(Clone)]
pub(super) struct DevConfig {
    path: PathBuf,
    /// Files that its settings name, as it was read last.
    files: BTreeSet<PathBuf>,
}

impl DevConfig {
    /// Reads the configuration of a folder.
    pub(super) fn of(dir: &Path) -> DevConfig {
        let mut config = DevConfig { path: dir.join("greenroom.toml"), files: BTreeSet::new() };
        config.read_again();
        config
    }

    /// Reads again which files it names. One that can't be read names those of before.
    pub(super) fn read_again(&mut self) {
        if let Some(files) = Config::files_named_in(&self.path) {
            self.files = files;
        }
    }

    /// Configurations of single handlers in the folder, which do not count: a line for each.
    pub(super) fn others(&self, project: &Project) -> Vec<String> {
        let files = project.folders().into_iter().map(|folder| folder.join("greenroom.toml"));
        let others = files.filter(|file| *file != self.path && file.is_file());
        let ours = self.path.display();
        others.map(|file| format!("{} does not count here, {ours} does", file.display())).collect()
    }

    /// Path of the configuration, which need not be there.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration, and the files that its settings name.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().chain([&self.path])
    }

    /// Place that the refusal of a service is about, in words; `None`: it is about no settings.
    /// `any`: all that a service says is about its settings, for nothing else has changed.
    pub(super) fn place(&self, refusal: &str, any: bool) -> Option<String> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let root = DeTable::parse(&text).ok()?.into_inner();
        let (_, behind) = refusal.split_once("service ")?;
        let (name, why) = behind.split_once(": ").filter(|(name, _)| !name.contains(' '))?;
        let (key, why) = match why.strip_prefix("settings: ") {
            Some(why) => (key_of(why), why),
            None if any => ("", why),
            None => return None,
        };
        let at = self.path.display();
        let settings = get(&root, "service").and_then(|(_, all)| get(all.get_ref().as_table()?, name));
        match settings.and_then(|(_, service)| get(service.get_ref().as_table()?, "settings")) {
            Some((header, value)) => {
                let offset = deepest(header.span().start, value, key);
                let line = text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
                // Words of the author may name a file of the settings, and its line.
                let named = self.files.iter().any(|file| why.contains(&*file.to_string_lossy()));
                (!named).then(|| format!("the settings of {name}: {at}:{line}"))
            }
            None => Some(format!("the settings of {name} are those below [service.{name}.settings] in {at}")),
        }
    }
}

/// Single files that count beside the project's folders.
pub(super) fn files(project: &Project, config: &DevConfig) -> Vec<PathBuf> {
    project.files().into_iter().chain(config.files().cloned()).collect()
}

/// Key that an error of settings is about, as a path with dots; empty: not known.
fn key_of(why: &str) -> &str {
    match why.split_once(": ") {
        Some((key, _)) if !key.contains(' ') => key,
        _ => why.split('`').nth(1).filter(|_| why.starts_with("unknown field")).unwrap_or_default(),
    }
}

/// Key of a table, with its value.
fn get<'t, 'i>(
    table: &'t DeTable<'i>,
    name: &str,
) -> Option<(&'t Spanned<toml::de::DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    table.iter().find(|(key, _)| key.get_ref() == name)
}

/// Offset of the deepest part of a path (`users[1].name`) that is there. `at`: that of the value.
fn deepest(mut at: usize, mut value: &Spanned<DeValue<'_>>, path: &str) -> usize {
    for part in path.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        let next = match value.get_ref() {
            DeValue::Table(table) => get(table, part).map(|(key, value)| (key.span(), value)),
            DeValue::Array(items) => {
                part.parse().ok().and_then(|n: usize| items.get(n)).map(|v| (v.span(), v))
            }
            _ => None,
        };
        let Some((span, below)) = next else { break };
        (at, value) = (span.start, below);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_a_place_and_files_are_named_though_they_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("greenroom.toml");
        let mut config = DevConfig::of(dir.path());
        assert_eq!(config.files().count(), 1);
        let text = "[service.door]\n\n[service.door.settings]\nname = 1\nusers = { read_file = \"users.txt\" }\n\
                    [service.door.settings.deep]\nlist = [\n  1,\n  { x = 2 },\n]\n[service.bare]\n";
        std::fs::write(&file, text).unwrap();
        config.read_again();
        let users = dir.path().join("users.txt");
        assert!(config.files().eq([&users, &file]));
        let at = |line: u32| Some(format!("the settings of door: {}:{line}", file.display()));
        for (why, any, line) in [
            ("settings: name: invalid type", false, 4),
            ("settings: deep.list[1].x: no", false, 9),
            ("settings: unknown field `deep`, expected `a`", false, 6),
            ("settings: missing field `other`", false, 3),
            ("nobody may enter", true, 3),
        ] {
            let refusal = format!("door: refused, generation 1 serves on: service door: {why}");
            assert_eq!(config.place(&refusal, any), at(line), "{why}");
        }
        let named = format!("service door: {}:2: no colon", users.display());
        assert_eq!(config.place(&named, true), None);
        assert_eq!(config.place("service door: nobody may enter", false), None);
        assert_eq!(config.place("service door can't listen on tcp://127.0.0.1:1: taken", true), None);
        assert!(
            config.place("service bare: settings: x: no", false).unwrap().contains("[service.bare.settings]")
        );
        // Half a file names what the whole one did.
        std::fs::write(&file, "[service").unwrap();
        config.read_again();
        assert_eq!(config.files().count(), 2);
    }
}
