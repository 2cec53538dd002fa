//! `greenroom check`: inspects and tries a library as a host does before it loads it, without a
//! host.

use crate::cli::output::{Failure, print_json, print_text, table};
use crate::config::Config;
use crate::exit_status::own_binary;
use crate::plugin::inspect::{build_id, inspect};
use crate::plugin::stage::{self, Content, Copies};
use crate::plugin::trial::{self, Trial, Tried};
use clap::Args;
use greenroom_state::elf_note::Note;
use serde_json::json;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct Check {
    /// The library
    path: PathBuf,
    /// The configuration to try it with (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Findings about a library.
pub(super) struct Looked {
    pub content: Content,
    pub note: Note,
    pub tried: Tried,
}

/// Inspects and tries a library as a host does before it loads it. The error names the file.
pub(super) fn look(path: &Path, config: &Config) -> Result<Looked, String> {
    let refuse = |why: String| {
        let path = path.display().to_string();
        if why.contains(&path) { why } else { format!("{path}: {why}") }
    };
    let content = stage::read(path, &config.trust).map_err(refuse)?;
    config.trust.check_hash(&content.hash).map_err(refuse)?;
    let note = inspect(&content.bytes).map_err(refuse)?;
    // The bytes that were inspected are tried, in a process of their own.
    let failed = |e: std::io::Error| format!("a directory for the private copy: {e}");
    let dir = std::env::temp_dir().join(format!("greenroom-check-{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(failed)?;
    let tried =
        Copies::new(dir.clone(), std::process::id(), 0).write(&content, &note.library).and_then(|copy| {
            let settings = config.settings();
            let (entry, limits) = (note.entry.as_str(), &config.limits);
            let trial = Trial { copy: &copy, entry, settings: &settings, snapshot: None, limits };
            let binary = own_binary().map_err(|e| format!("the trial process can't be started: {e}"))?;
            trial::run(&binary, &trial, |_, _| {})
        });
    let _ = std::fs::remove_dir_all(&dir);
    Ok(Looked { content, note, tried: tried.map_err(refuse)? })
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = match &self.config {
            Some(path) => Config::read(path).map_err(Failure::Failed)?,
            None => Config::default(),
        };
        let Looked { content, note, tried } = look(&self.path, &config).map_err(Failure::Failed)?;
        let trial::Tried { library, offers, .. } = tried;
        let build_id = build_id(&content.bytes);
        let abi = format!("{}.{}", note.abi.0, note.abi.1);
        if self.json {
            let services: Vec<_> = offers
                .iter()
                .map(|o| {
                    let bytes_max = o.framing.bytes_max();
                    json!({
                        "name": o.name, "port": o.port, "frame_bytes_max": bytes_max, "state_version": o.shape.version,
                        "state_schema": o.shape.schema, "migrations_from": o.shape.migrations,
                        "downgrades_from": o.shape.downgrades, "tables": o.tables,
                    })
                })
                .collect();
            print_json(&json!({
                "library": library, "build": content.hash, "build_id": build_id, "abi": abi, "sdk": note.sdk, "services": services,
            }));
            return Ok(());
        }
        let versions = |all: &[u32]| all.iter().map(|v| format!("v{v}")).collect::<Vec<_>>().join(" ");
        let mut table = table(&[
            "SERVICE",
            "PORT",
            "FRAMES UP TO",
            "STATE",
            "MIGRATES FROM",
            "DOWNGRADES FROM",
            "TABLES",
        ]);
        for o in &offers {
            let bytes_max = o.framing.bytes_max();
            let tables: Vec<_> =
                o.tables.iter().map(|t| format!("{} v{}", t.name, t.shape.version)).collect();
            table.add_row([
                o.name.clone(),
                o.port.to_string(),
                bytes_max.to_string(),
                if o.shape.schema.is_some() { format!("v{}", o.shape.version) } else { "-".into() },
                versions(&o.shape.migrations),
                versions(&o.shape.downgrades),
                tables.join(", "),
            ]);
        }
        let sdk = &note.sdk;
        print_text(&format!("library {library}, build {}, ABI {abi}, SDK {sdk}\n{table}\n", content.hash));
        Ok(())
    }
}
