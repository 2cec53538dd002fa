//! Command `greenroom check`: inspects and tries a library as a host does, without a host.
//!
//! The steps are those of a reload up to the trial: read and trust, inspect without running,
//! then load in a confined child process. There is no live data, so nothing is rehearsed. A
//! library that passes may still be refused by a host, whose states and tables decide.
//!
//! `greenroom serve --check-config` runs the same steps for all libraries ([`look`]). The
//! process that checks never loads the library itself: a crash of the library is a refusal,
//! with its signal.

use crate::cli::offers::judge;
use crate::cli::output::{CommandFailure, print_json, print_text};
use crate::cli::table::table;
use crate::config::{Config, is_text};
use crate::plugin::inspect::{Inspected, build_id, inspect};
use crate::plugin::recording::Unpacked;
use crate::plugin::stage::{self, Content, Copies};
use crate::plugin::trial::{self, Trial, Tried};
use crate::sys::proc::own_binary;
use clap::Args;
use greenroom_core::service::offer::{EndpointOffer, Offer};
use greenroom_state::elf_note::Note;
use serde_json::json;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

// Doc comments of the fields are the help text of the command line.
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
    /// File, as it was read once: its bytes and their hash.
    pub content: Content,
    /// Note of the library.
    pub note: Note,
    /// Offers of the library, as the trial found them.
    pub tried: Tried,
}

/// Inspects and tries a library as a host does before it loads it. Replays a recording if one is
/// given, with the differences that are allowed. The error names the file.
///
/// Blocks for a file's reading and a child's run. Makes a private copy in a directory of its
/// own below the temporary directory, and deletes that directory in the end.
pub(super) fn look(
    path: &Path,
    config: &Config,
    recording: Option<(&Unpacked, &[String])>,
) -> Result<Looked, String> {
    // Some reasons name the file already, and a private copy's path says nothing to an
    // operator.
    let refuse = |why: String| {
        let path = path.display().to_string();
        if why.contains(&path) { why } else { format!("{path}: {why}") }
    };
    // Read once: all steps see the same bytes, even if the file is replaced meanwhile.
    let content = stage::read(path, &config.trust).map_err(refuse)?;
    config.trust.check_hash(&content.hash).map_err(refuse)?;
    let Inspected { note, .. } = inspect(&content.bytes, path).map_err(refuse)?;
    // The bytes that were inspected are tried, in a process of their own. A directory that
    // exists is refused: somebody else may have put a file there.
    let failed = |e: std::io::Error| format!("a directory for the private copy: {e}");
    let dir = std::env::temp_dir().join(format!("greenroom-check-{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(failed)?;
    let tried =
        Copies::new(dir.clone(), std::process::id(), 0).write(&content, &note.library).and_then(|copy| {
            let settings = config.files.filled_in(&config.settings());
            let (entry, limits) = (note.entry.as_str(), &config.limits);
            let trial = Trial { copy: &copy, entry, settings: &settings, snapshot: None, recording, limits };
            let binary = own_binary().map_err(|e| format!("the trial process can't be started: {e}"))?;
            trial::run_confined(&binary, &trial, config.reload.confinement, |_, _| {})
        });
    // Deleted whatever the trial said: the copy is of no use after it.
    let _ = std::fs::remove_dir_all(&dir);
    Ok(Looked { content, note, tried: tried.map_err(refuse)? })
}

impl Check {
    /// Runs the command. Exit code 0: a host would find nothing wrong before it looks at live
    /// data.
    pub(super) fn run(self) -> Result<(), CommandFailure> {
        let config = match &self.config {
            Some(path) => Config::read(path).map_err(CommandFailure::Failed)?,
            None => Config::default(),
        };
        // A host could not be told of another path.
        is_text(&self.path).map_err(CommandFailure::Failed)?;
        let Looked { content, note, tried } =
            look(&self.path, &config, None).map_err(CommandFailure::Failed)?;
        let trial::Tried { library, offers, .. } = tried;
        judge(&config, &offers)
            .map_err(|why| CommandFailure::Failed(format!("{}: {why}", self.path.display())))?;
        let build_id = build_id(&content.bytes);
        let abi = format!("{}.{}", note.abi.0, note.abi.1);
        if self.json {
            // Programs depend on the names of these fields.
            let endpoints = |o: &Offer| {
                let one = |e: &EndpointOffer| json!({"kind": e.framing.kind(), "port": e.port});
                o.endpoints.iter().map(one).collect::<Vec<_>>()
            };
            let services: Vec<_> = offers
                .iter()
                .map(|o| {
                    let bytes_max = o.framing().bytes_max();
                    json!({
                        "name": o.name, "port": o.endpoints[0].port, "endpoints": endpoints(o), "frame_bytes_max": bytes_max, "state_version": o.shape.version,
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
        let ports = |o: &Offer| {
            let one = |e: &EndpointOffer| format!("{}:{}", e.framing.kind(), e.port);
            o.endpoints.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        let versions = |all: &[u32]| all.iter().map(|v| format!("v{v}")).collect::<Vec<_>>().join(" ");
        let mut table = table(&[
            "SERVICE",
            "PORTS",
            "FRAMES UP TO",
            "STATE",
            "MIGRATES FROM",
            "DOWNGRADES FROM",
            "TABLES",
        ]);
        for o in &offers {
            let bytes_max = o.framing().bytes_max();
            let tables: Vec<_> =
                o.tables.iter().map(|t| format!("{} v{}", t.name, t.shape.version)).collect();
            table.add_row([
                o.name.clone(),
                ports(o),
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
