//! `greenroom serve --check-config`: checks whether a host could start, or go on, with this
//! configuration and these libraries.

use crate::cli::check::look;
use crate::cli::output::{Failure, print_text};
use crate::config::Config;
use crate::plugin::discover::Found;
use greenroom_core::reload::ports;
use std::collections::BTreeSet;

/// Checks all that can be checked without serving: libraries, their settings, frames against
/// limits, and addresses that two services want. Does not check whether an address is free.
pub(super) fn run(config: &Config, found: &Found) -> Result<(), Failure> {
    let (mut wanted, mut services) = (BTreeSet::new(), BTreeSet::new());
    for (path, _) in &found.libraries {
        let looked = look(path, config).map_err(Failure::Failed)?;
        for offer in looked.tried.offers {
            let refuse = |why: String| Failure::Failed(format!("{}: {why}", path.display()));
            let (frames, allowed) =
                (offer.framing.bytes_max(), config.all_limits().of(&offer.name).frame_bytes_max);
            if frames == 0 || frames > allowed {
                return Err(refuse(format!(
                    "service {} wants frames of up to {frames} bytes; from 1 to {allowed} are allowed (limit frame_bytes_max)",
                    offer.name
                )));
            }
            let addresses = config.addresses(&offer.name, offer.port, offer.dials).map_err(refuse)?;
            for addr in &addresses {
                wanted.insert((offer.name.clone(), *addr));
                print_text(&format!("{} on tcp://{addr}\n", offer.name));
            }
            if !services.insert(offer.name.clone()) {
                return Err(refuse(format!("service {} is another library's, too", offer.name)));
            }
        }
    }
    ports::changes(&BTreeSet::new(), &wanted).map_err(Failure::Failed)?;
    for service in config.service.keys().filter(|s| !services.contains(*s)) {
        eprintln!("service {service} is configured, but no library offers it");
    }
    print_text("the configuration is good\n");
    Ok(())
}
