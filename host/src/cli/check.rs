//! `greenroom check`: what a host would find out about a library before it loads it, without a host.

use super::{Failure, print_json, print_text, table};
use crate::config::Config;
use crate::plugin::inspect::inspect;
use crate::plugin::stage::{self, Copies};
use crate::plugin::trial;
use clap::Args;
use greenroom_core::framing::Framing;
use serde_json::json;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct Check {
    /// The library
    path: PathBuf,
    /// The configuration that it is to be served with (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = match &self.config {
            Some(path) => Config::read(path).map_err(Failure::Failed)?,
            None => Config::default(),
        };
        let refuse = |why: String| {
            let path = self.path.display().to_string();
            Failure::Failed(if why.contains(&path) { why } else { format!("{path}: {why}") })
        };
        let content = stage::read(&self.path, &config.trust).map_err(refuse)?;
        config.trust.check_hash(&content.hash).map_err(refuse)?;
        let note = inspect(&content.bytes).map_err(refuse)?;
        // The very bytes that were inspected are tried, in a process of their own.
        let failed = |e: std::io::Error| Failure::Failed(format!("a directory for the private copy: {e}"));
        let dir = std::env::temp_dir().join(format!("greenroom-check-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(failed)?;
        let tried = Copies::new(dir.clone(), std::process::id(), 0)
            .write(&content, &note.library)
            .and_then(|copy| trial::run(&copy, &note.entry, &config.settings(), None));
        let _ = std::fs::remove_dir_all(&dir);
        let ((library, offers), _) = tried.map_err(refuse)?;
        let abi = format!("{}.{}", note.abi.0, note.abi.1);
        if self.json {
            let services: Vec<_> = offers
                .iter()
                .map(|o| {
                    let Framing::Lines { bytes_max } = o.framing;
                    json!({
                        "name": o.name, "port": o.port, "frame_bytes_max": bytes_max, "state_version": o.shape.version,
                        "state_schema": o.shape.schema, "migrations_from": o.shape.migrations,
                    })
                })
                .collect();
            print_json(&json!({
                "library": library, "build": content.hash, "abi": abi, "sdk": note.sdk, "services": services,
            }));
            return Ok(());
        }
        let mut table = table(&["SERVICE", "PORT", "LINES UP TO", "STATE", "MIGRATES FROM"]);
        for o in &offers {
            let Framing::Lines { bytes_max } = o.framing;
            let from: Vec<_> = o.shape.migrations.iter().map(|v| format!("v{v}")).collect();
            table.add_row([
                o.name.clone(),
                o.port.to_string(),
                bytes_max.to_string(),
                if o.shape.schema.is_some() { format!("v{}", o.shape.version) } else { "-".into() },
                from.join(" "),
            ]);
        }
        let sdk = &note.sdk;
        print_text(&format!("library {library}, build {}, ABI {abi}, SDK {sdk}\n{table}\n", content.hash));
        Ok(())
    }
}
