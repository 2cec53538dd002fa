//! Option `greenroom serve --check-config`: checks whether a host could start, or go on, with
//! this configuration and these libraries.
//!
//! Nothing is served, no lock is taken and no port is opened, so the check runs beside a host
//! that serves. Each library is tried in a child process, one after the other; O(libraries).

use crate::admin::audit;
use crate::cli::check::look;
use crate::cli::confined::confined;
use crate::cli::output::{CommandFailure, complain, print_text};
use crate::config::Config;
use crate::keeper::handshaker_process;
use crate::observe::guard;
use crate::protocol::found::Found;
use crate::saved_place;
use greenroom_core::reload::ports;
use std::collections::BTreeSet;

/// Checks all that can be checked without serving: the file of saved tables, certificates and
/// keys, libraries, their settings, frames against limits, and addresses that two services want.
/// Prints the address of each service.
///
/// The first fault ends the check with exit code 1. Does not check whether an address is free,
/// and knows no live data. A configured service that no library offers is a warning, as in a
/// host.
pub(super) fn run(config: &Config, found: &Found) -> Result<(), CommandFailure> {
    check_saved(config).map_err(CommandFailure::Failed)?;
    audit::can_be_written(config.admin.audit.as_deref()).map_err(CommandFailure::Failed)?;
    if let Some(path) = &config.observe.token_file {
        let read = guard::read_token(path);
        read.map_err(|e| CommandFailure::Failed(format!("observe.token_file: {e}")))?;
    }
    config.log.check_place().map_err(CommandFailure::Failed)?;
    confined(config, complain)?;
    handshaker_process::check(&config.tls_settings()).map_err(CommandFailure::Failed)?;
    let (mut wanted, mut services) = (BTreeSet::new(), BTreeSet::new());
    for (path, _) in &found.libraries {
        let looked = look(path, config, None).map_err(CommandFailure::Failed)?;
        for offer in looked.tried.offers {
            let refuse = |why: String| CommandFailure::Failed(format!("{}: {why}", path.display()));
            // A host refuses such an offer too, by the same limit.
            let (frames, allowed) =
                (offer.framing().bytes_max(), config.all_limits().of(&offer.name).frame_bytes_max);
            if frames == 0 || frames > allowed {
                return Err(refuse(format!(
                    "service {} wants frames of up to {frames} bytes; from 1 to {allowed} are allowed (limit frame_bytes_max)",
                    offer.name
                )));
            }
            for endpoint in config.endpoints(&offer).map_err(refuse)? {
                print_text(&format!("{} on {endpoint}\n", offer.name));
                wanted.insert((offer.name.clone(), endpoint.address));
            }
            if !services.insert(offer.name.clone()) {
                return Err(refuse(format!("service {} is another library's, too", offer.name)));
            }
        }
    }
    // No port is held here, so the only fault left is an address that two services want.
    ports::changes(&BTreeSet::new(), &wanted).map_err(CommandFailure::Failed)?;
    for service in config.service.keys().filter(|s| !services.contains(*s)) {
        complain(&format!("service {service} is configured, but no library offers it"));
    }
    print_text("the configuration is good\n");
    Ok(())
}

/// Checks the file of saved tables, if one is configured.
pub(super) fn check_saved(config: &Config) -> Result<(), String> {
    let checked = config.save.file.as_deref().map_or(Ok(()), saved_place::check);
    checked.map_err(|e| format!("save.file: {e}"))
}
